"""The results as Markdown."""

from typing import Any

from bench.batch.engine import SEQUENCES, STEP_S, TOKENS
from bench.batch.measure import BUSY

_ROWS = {
    "online_per_s": "answers a second, asked by clients",
    "batch_per_s": "answers a second, asked by a batch, from its begin to its output",
    "throughput_ratio": "**the second divided by the first**",
    "ttft_p95_alone_ms": "TTFT p95 without a batch, ms",
    "ttft_p95_beside_ms": "TTFT p95 beside a batch, ms",
    "ttft_p95_ratio": "**the second divided by the first**",
    "ray_data_start_s": "a large batch, sent by Ray Data: until its first answers are kept, s",
    "ttft_p95_beside_ray_data_ms": "TTFT p95 beside it, ms",
    "ray_data_ttft_p95_ratio": "**divided by that without a batch**",
    "ray_data_per_s": "answers a second, asked by it, while it runs",
    "ray_data_throughput_ratio": "**divided by those asked by clients**",
}


def markdown(results: dict[str, Any]) -> str:
    """The page for people."""
    machine = results["machine"]
    rows = "\n".join(
        f"| {title} | {results[name]['median']} | {', '.join(map(str, results[name]['rounds']))} |"
        for name, title in _ROWS.items()
    )
    return f"""# Batches

`{results["command"]}`

{machine["cpu"]}, {machine["cores"]} cores, {machine["memory_gb"]} GB, load {machine["load_before"]} before the run;
{results["date"]}. Written by that command.

| | median | rounds |
|---|---|---|
{rows}

In turns, in one run, through the gateway and the batches as the chart deploys them. The model is a fake with the pace
of values/batch.yaml's: {SEQUENCES} places, and a token each {STEP_S * 1000:g} ms, in which an L4 reads the weights
once. It takes the lower priority number first; an answer has {TOKENS} tokens. Throughput is of a model that nobody
else asks. The time to the first token (TTFT) is that of streams that come evenly and ask for {BUSY:.0%} of the model,
while a batch asks for all it can get. Ratios are medians of the rounds' ratios.
"""
