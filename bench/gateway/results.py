"""From rounds to what is reported: the keys of bench/results/gateway.json."""

from collections.abc import Callable
from typing import Any

from bench.gateway.figures import Figure, difference, ratio
from bench.gateway.rounds import Figures
from bench.gateway.stages import beside

#: The keys, what they are, and the goal each has (an upper bound if it begins with <, else a lower one).
KEYS: dict[str, tuple[str, str]] = {
    "cpu_per_token_vs_router": ("CPU per streamed token ÷ vllm-router's", "≤ 2.5"),
    "stock_vs_ours": ("Two-deployment Ray Serve's CPU per streamed token ÷ ours", "≥ 12"),
    "serve_llm_vs_ours": ("Ray Serve LLM's CPU per streamed token (in batches of 50 ms) ÷ ours", "≥ 1"),
    "added_ttft_ms_p50_c1": ("TTFT p50, one stream, less vllm-router's, ms", "≤ 1"),
    "added_ttft_ms_p99_c32": ("TTFT p99, 32 streams at once, less vllm-router's, ms", "≤ 10"),
    "throughput_ratio_c8": ("Tokens/s of SmolLM2 ÷ bare vllm serve, 8 streams", "≥ 0.97"),
    "throughput_ratio_c32": ("Tokens/s of SmolLM2 ÷ bare vllm serve, 32 streams", "≥ 0.97"),
    "unary_vs_router": ("Unary requests/s ÷ vllm-router's", "≥ 0.5"),
    "streaming_ceiling_vs_stock": ("Streaming ceiling ÷ Ray Serve LLM's", "≥ 10"),
    "prompt_cost_per_byte_vs_router": ("CPU per byte of 220 KB prompts ÷ vllm-router's", "≤ 1"),
}

#: Those that come of SmolLM2; the others come of the mock model.
_REAL_KEYS = ["throughput_ratio_c8", "throughput_ratio_c32"]
#: What says where figures come from, and what must be equal for figures of two runs to stand in one report.
SOURCE = ("command", "date", "rounds", "machine")
ALIKE = ("cpu", "cores", "memory_gb")


def keys(mock: Figures, real: Figures, ours: str) -> dict[str, float | None]:
    """The keys for the system ``ours``; None where one of the two systems was not measured.

    Like is compared with like: with vllm-router when both have the same model behind them, outside Ray; with Ray Serve
    when the model of both is on Ray.
    """

    def of(figures: Figures, system: str, measure: str) -> list[float] | None:
        return figures.get(system, {}).get(measure)

    def beside_bare(measure: str) -> float | None:
        # Each of the two phases has rounds of the bare server of its own.
        bare = "bare" if ours == "ours" else f"bare-{ours}"
        return ratio(of(real, ours, measure), of(real, bare, measure))

    def beside_stock(stock: str, measure: str) -> tuple[list[float] | None, list[float] | None]:
        # Features are measured last, and Ray Serve beside them once more.
        theirs = stock if ours == "ours" else beside(stock, ours)
        return of(mock, theirs, measure), of(mock, beside(ours, "stock"), measure)

    stock_ceiling, ceiling = beside_stock("stock", "ceiling_tokens_per_s")
    router = beside_router(mock, f"{ours}-standalone")
    return {key: router.get(key) for key in KEYS} | {
        "stock_vs_ours": ratio(*beside_stock("handle", "cpu_us_per_token")),
        "serve_llm_vs_ours": ratio(*beside_stock("stock", "cpu_us_per_token")),
        "throughput_ratio_c8": beside_bare("tokens_per_s_c8"),
        "throughput_ratio_c32": beside_bare("tokens_per_s_c32"),
        "streaming_ceiling_vs_stock": ratio(ceiling, stock_ceiling),
    }


def beside_router(mock: Figures, system: str) -> dict[str, float | None]:
    """The keys that compare a system with vllm-router, in the stage that both are in."""
    router = beside("vllm-router", "features") if system.startswith("features") else "vllm-router"

    def each(measure: str, compare: Callable[[list[float] | None, list[float] | None], float | None]) -> float | None:
        return compare(*(mock.get(name, {}).get(measure) for name in (system, router)))

    return {
        "cpu_per_token_vs_router": each("cpu_us_per_token", ratio),
        "added_ttft_ms_p50_c1": each("ttft_ms_p50_c1", difference),
        "added_ttft_ms_p99_c32": each("ttft_ms_p99_c32", difference),
        "unary_vs_router": each("unary_per_s", ratio),
        "prompt_cost_per_byte_vs_router": each("prompt_cpu_ns_per_byte", ratio),
    }


def tables(figures: Figures, titles: dict[str, str]) -> dict[str, Any]:
    """Every figure of every system, with its rounds and their spread."""
    return {
        system: {
            "title": titles.get(system, system),
            "measures": {name: Figure(tuple(rounds)).document() for name, rounds in measures.items()},
        }
        for system, measures in figures.items()
    }


def meets(value: float | None, goal: str) -> bool | None:
    """Whether a value keeps its goal; None if there is no value."""
    if value is None:
        return None
    sign, bound = goal.split()
    return value <= float(bound) if sign == "≤" else value >= float(bound)


def completed(document: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """A run of one half (the mock model, or SmolLM2) with the other half of ``earlier``, and where that comes from.

    ``document`` as it is if it has both, or if ``earlier`` is of another machine or of other versions.
    """
    parts = {"systems": [key for key in KEYS if key not in _REAL_KEYS], "real": _REAL_KEYS}
    left_out = [part for part in parts if not document[part] and earlier[part]]
    if len(left_out) != 1 or earlier["versions"] != document["versions"]:
        return document
    if any(earlier["machine"][one] != document["machine"][one] for one in ALIKE):
        return document
    (part,) = left_out

    def with_theirs(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
        return ours | {key: theirs[key] for key in parts[part]}

    def of_part(named: dict[str, Any]) -> dict[str, Any]:
        return {name: one for name, one in named.items() if name.startswith("real:") == (part == "real")}

    source = {"part": part} | {name: earlier[name] for name in SOURCE}
    return {
        **with_theirs(document, earlier),
        "features_on": with_theirs(document["features_on"], earlier["features_on"]),
        "model_on_ray": (document if part == "real" else earlier)["model_on_ray"],
        part: earlier[part],
        **{name: of_part(earlier[name]) | document[name] for name in ("memory_mb", "failures")},
        "earlier": source if earlier.get("earlier", {}).get("part") != part else earlier["earlier"],
    }
