import pytest

from bench.gateway.results import KEYS, beside_router, keys, meets, tables

MOCK = {
    "vllm-router": {
        "cpu_us_per_token": [14.0, 28.0],
        "ttft_ms_p50_c1": [0.2, 0.2],
        "ttft_ms_p99_c32": [3.0, 4.0],
        "unary_per_s": [30000.0, 20000.0],
        "prompt_cpu_ns_per_byte": [2.0, 2.0],
    },
    "stock": {"cpu_us_per_token": [420.0, 840.0], "ceiling_tokens_per_s": [1000.0, 1000.0]},
    "handle": {"cpu_us_per_token": [560.0, 1120.0]},
    "ours": {
        "cpu_us_per_token": [28.0, 56.0],
        "unary_per_s": [3000.0, 2000.0],
    },
    "ours-beside-stock": {"cpu_us_per_token": [28.0, 56.0], "ceiling_tokens_per_s": [12000.0, 11000.0]},
    "vllm-router-beside-features": {"cpu_us_per_token": [10.0, 10.0]},
    "features-standalone": {"cpu_us_per_token": [20.0, 20.0]},
    "stock-beside-features": {"ceiling_tokens_per_s": [500.0, 500.0]},
    "features-beside-stock": {"ceiling_tokens_per_s": [6000.0, 6500.0]},
    "ours-standalone": {
        "cpu_us_per_token": [21.0, 42.0],
        "ttft_ms_p50_c1": [0.7, 0.9],
        "ttft_ms_p99_c32": [8.0, 8.0],
        "unary_per_s": [15000.0, 10000.0],
        "prompt_cpu_ns_per_byte": [1.0, 3.0],
    },
}
REAL = {
    "bare": {"tokens_per_s_c8": [100.0, 120.0], "tokens_per_s_c32": [200.0, 200.0]},
    "ours": {"tokens_per_s_c8": [99.0, 118.8], "tokens_per_s_c32": [196.0, 198.0]},
    "bare-features": {"tokens_per_s_c8": [100.0], "tokens_per_s_c32": [100.0]},
    "features": {"tokens_per_s_c8": [98.0], "tokens_per_s_c32": [97.0]},
}


def test_the_keys_are_those_of_the_issue() -> None:
    assert keys(MOCK, REAL, "ours") == {
        "cpu_per_token_vs_router": 1.5,
        "serve_llm_vs_ours": 15.0,
        "stock_vs_ours": 20.0,
        "added_ttft_ms_p50_c1": 0.6,
        "added_ttft_ms_p99_c32": 4.5,
        "throughput_ratio_c8": 0.99,
        "throughput_ratio_c32": 0.985,
        "unary_vs_router": 0.5,
        "streaming_ceiling_vs_stock": 11.5,
        "prompt_cost_per_byte_vs_router": 1.0,
    }
    assert set(keys(MOCK, REAL, "ours")) == set(KEYS)


def test_a_model_on_ray_is_compared_apart() -> None:
    found = beside_router(MOCK, "ours")
    assert (found["cpu_per_token_vs_router"], found["unary_vs_router"]) == (2.0, 0.1)
    assert found["added_ttft_ms_p50_c1"] is None
    assert found.keys() == beside_router(MOCK, "ours-standalone").keys() < KEYS.keys()


def test_features_are_compared_with_what_stood_beside_them() -> None:
    found = keys(MOCK, REAL, "features")
    assert (found["throughput_ratio_c8"], found["throughput_ratio_c32"]) == (0.98, 0.97)
    assert (found["cpu_per_token_vs_router"], found["streaming_ceiling_vs_stock"]) == (2.0, 12.5)
    assert found["stock_vs_ours"] is None


def test_what_was_not_measured_has_no_value() -> None:
    assert set(keys({}, {}, "ours").values()) == {None}


@pytest.mark.parametrize(
    ("value", "goal", "kept"),
    [(2.5, "≤ 2.5", True), (2.6, "≤ 2.5", False), (12, "≥ 12", True), (11, "≥ 12", False), (None, "≥ 12", None)],
)
def test_a_goal_is_kept_or_missed(value: float | None, goal: str, kept: bool | None) -> None:
    assert meets(value, goal) is kept


def test_tables_hold_every_round() -> None:
    found = tables({"stock": {"cpu_us_per_token": [1.0, 3.0, 2.0]}}, {"stock": "Ray Serve LLM"})
    figure = {"median": 2.0, "spread": 1.0, "rounds": [1.0, 3.0, 2.0]}
    assert found == {"stock": {"title": "Ray Serve LLM", "measures": {"cpu_us_per_token": figure}}}
