"""From rounds to what is reported: the keys of bench/results/gateway.json."""

from typing import Any

from bench.gateway.figures import Figure, difference, ratio
from bench.gateway.rounds import Figures

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


def keys(mock: Figures, real: Figures, ours: str) -> dict[str, float | None]:
    """The keys for the system ``ours``; None where one of the two systems was not measured."""

    def of(figures: Figures, system: str, measure: str) -> list[float] | None:
        return figures.get(system, {}).get(measure)

    def against(other: str, measure: str) -> float | None:
        return ratio(of(mock, ours, measure), of(mock, other, measure))

    def added(measure: str) -> float | None:
        return difference(of(mock, ours, measure), of(mock, "vllm-router", measure))

    def beside_bare(measure: str) -> float | None:
        # Each of the two phases has rounds of the bare server of its own.
        bare = "bare" if ours == "ours" else f"bare-{ours}"
        return ratio(of(real, ours, measure), of(real, bare, measure))

    cpu = "cpu_us_per_token"
    return {
        "cpu_per_token_vs_router": against("vllm-router", cpu),
        "stock_vs_ours": ratio(of(mock, "handle", cpu), of(mock, ours, cpu)),
        "serve_llm_vs_ours": ratio(of(mock, "stock", cpu), of(mock, ours, cpu)),
        "added_ttft_ms_p50_c1": added("ttft_ms_p50_c1"),
        "added_ttft_ms_p99_c32": added("ttft_ms_p99_c32"),
        "throughput_ratio_c8": beside_bare("tokens_per_s_c8"),
        "throughput_ratio_c32": beside_bare("tokens_per_s_c32"),
        "unary_vs_router": against("vllm-router", "unary_per_s"),
        "streaming_ceiling_vs_stock": against("stock", "ceiling_tokens_per_s"),
        "prompt_cost_per_byte_vs_router": against("vllm-router", "prompt_cpu_ns_per_byte"),
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
