"""The results as Markdown and as a picture."""

from typing import Any
from xml.sax.saxutils import escape

_COLUMNS = (
    ("hits", "hit_ratio", "{:.1%}"),
    ("of the bound", "hit_ratio_of_bound", "{:.1%}"),
    ("imbalance, requests", "imbalance_requests", "{:.2f}"),
    ("imbalance, tokens", "imbalance_tokens", "{:.2f}"),
    ("TTFT p50, s", "ttft_p50_s", "{:.2f}"),
    ("TTFT p95, s", "ttft_p95_s", "{:.2f}"),
)

#: The picture, in pixels.
_WIDTH, _BAR, _GAP, _LABELS, _TOP = 720, 24, 12, 190, 56


def markdown(results: dict[str, Any]) -> str:
    """The page for people."""
    trace, model, decision = results["trace"], results["model"], results["decision_us"]
    long = decision["prompt_220_kb"]
    checksum = f", SHA-256 `{trace['sha256']}`" if trace["sha256"] else ", made from a seed"
    shapes = "\n".join(f"### {name}\n\n{_table('policy', rows)}" for name, rows in results["shapes"].items())
    return f"""# Choice of a replica

`{results["command"]}`

{results["machine"]}; Python {results["versions"]["python"]}, commit {results["versions"]["commit"]}. Written by that
command; what the policy does is in [docs/routing.md](../../docs/routing.md).

Trace: {trace["name"]}{checksum}, {trace["requests"]:,} requests in {trace["seconds"]:,.0f} s.

**{results["hit_ratio_of_bound"]:.1%} of the pooled bound at imbalance {results["imbalance"]:.2f}.**

| one decision, us | p50 | p99 |
|---|---|---|
| the trace's prompts as text, hashing included, on the clock | {decision["p50"]} | {decision["p99"]} |
| the same, CPU | {decision["cpu_p50"]} | {decision["cpu_p99"]} |
| a prompt of 220 KB: hashing, CPU | {long["hashing_p50"]} | {long["hashing_p99"]} |
| a prompt of 220 KB: the choice itself, CPU | {long["choice_p50"]} | {long["choice_p99"]} |

- Hits: blocks of 512 tokens found in the chosen replica's cache, from the prompt's beginning on, of all blocks.
- Bound: the hits of one cache as large as all replicas' together ({results["hit_ratio_bound"]:.1%}). A conversation
  can find a bit more in its own replica's cache, where the others' prompts do not push it out.
- Imbalance: the most that one replica got, divided by the mean; the headline is the worse of requests and tokens
  (prompt and generated).
- Simulated: {model["replicas"]} replicas with an LRU cache of {model["cache_blocks"]:,} blocks each. A replica computes
  prompts one after the other, without the cached part, at {model["prefill_tokens_per_s"]:,.0f} tokens/s, and generates
  a token each {model["token_s"] * 1000:.0f} ms. TTFT is that queue's; it compares policies and predicts nothing.

## Policies

{_table("policy", results["policies"])}
## The same trace in other settings

Each against the bound of its own caches.

{_table("setting", results["sensitivity"])}
## Other shapes

Made from a seed: agents share one system prompt; applications have twenty, some popular; sessions are long and share
nothing; fresh prompts have nothing in common.

{shapes}"""


def svg(results: dict[str, Any]) -> str:
    """Bars of the policies' hits, with the bound as a line and the imbalance beside each."""
    rows, best = results["policies"], results["hit_ratio_bound"]
    scale = (_WIDTH - _LABELS - 190) / (max([best, *(row["hit_ratio"] for row in rows.values())]) or 1)
    height = _TOP + len(rows) * (_BAR + _GAP) + 30
    bound_x = round(_LABELS + best * scale, 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="13" fill="#222">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="24" font-size="15">Prompt blocks found in cache: {escape(results["trace"]["name"])}</text>',
    ]
    for number, (name, row) in enumerate(rows.items()):
        top = _TOP + number * (_BAR + _GAP)
        width = row["hit_ratio"] * scale
        colour = "#2b6cb0" if number == len(rows) - 1 else "#a0aec0"
        imbalance = max(row["imbalance_requests"], row["imbalance_tokens"])
        parts += [
            f'<text x="{_LABELS - 10}" y="{top + 17}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LABELS}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>',
            f'<text x="{_LABELS + max(width, best * scale) + 8:.1f}" y="{top + 17}">'
            f"{row['hit_ratio']:.1%}, imbalance {imbalance:.2f}</text>",
        ]
    bottom = height - 24
    parts += [
        f'<line x1="{bound_x}" y1="{_TOP - 8}" x2="{bound_x}" y2="{bottom - 4}" stroke="#c53030"/>',
        f'<text x="{bound_x}" y="{bottom + 12}" text-anchor="middle">pooled bound {best:.1%}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _table(first: str, rows: dict[str, dict[str, float]]) -> str:
    lines = [
        f"| {first} | {' | '.join(title for title, _, _ in _COLUMNS)} |",
        f"|---|{'---|' * len(_COLUMNS)}",
        *(
            f"| {name} | {' | '.join(form.format(row[key]) for _, key, form in _COLUMNS)} |"
            for name, row in rows.items()
        ),
    ]
    return "\n".join(lines) + "\n"
