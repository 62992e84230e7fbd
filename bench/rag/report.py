"""The results as Markdown and as a picture."""

from typing import Any
from xml.sax.saxutils import escape

#: Stages in the order of an answer, for the picture; keywords run beside embed.
_STAGES = ("embed", "keywords", "search", "feedback")

#: The picture, in pixels.
_WIDTH, _BAR, _GAP, _LABELS, _TOP = 720, 24, 12, 120, 56


def markdown(results: dict[str, Any]) -> str:
    """The page for people."""
    machine = results["machine"]
    releases = ", ".join(f"{name} {release}" for name, release in results["versions"].items())
    stages = "\n".join(f"| {name} | {results['stages'][name]} |" for name in _STAGES if name in results["stages"])
    stores = "\n".join(
        f"| {each['chunks']:,} | {each['written_s']} ({each['written_per_s']:,}/s) "
        f"| {each['search_p50_ms']} / {each['search_p99_ms']} | {each['keywords_p50_ms']} / {each['keywords_p99_ms']} "
        f"| {each['recall10']} | {each['reopened_s']} | {each['memory_mb']} |"
        for each in results["stores"]
    )
    missing = ", ".join(results["degraded"]) or "none"
    return f"""# Retrieval

`{results["command"]}`

{machine["cpu"]}, {machine["cores"]} cores, {machine["memory_gb"]} GB, load {machine["load_before"]} before the run;
{releases}; {results["date"]}. Written by that command; what is done is in [docs/rag.md](../../docs/rag.md).

**nDCG@10 {results["ndcg10"]}, recall@100 {results["recall100"]}; a retrieval takes
{results["retrieval_over_embed"]} times its embedding.**

{results["documents"]:,} documents in {results["chunks"]:,} chunks, {results["questions"]:,} questions, through the
running app: HTTP, all-MiniLM-L6-v2 on vLLM on the CPU, an embedded store. A document stands where its best chunk does;
relevance is binary. Ingested in {results["ingest_s"]} s. Stages that did not take part: {missing}.

| stage | p50, ms |
|---|---|
{stages}
| the whole, as a client sees it | {results["retrieval_p50_ms"]} |

keywords runs beside embed. The ratio is the median over the questions, one after the other.

## The embedded store alone

Made chunks, 20 to a document, written one document after the other as an upload writes them: 120 words, as frequent as
in texts, and a vector of 384 dimensions drawn from a normal distribution with a fixed seed. Embedding is not in it. The
best 10 of each search; recall against double precision. Reopened: the seconds to the first answers after a restart, and
the memory of the store then.

| chunks | written and indexed, s | search p50 / p99, ms | keywords p50 / p99, ms | recall@10 | reopened, s | MB |
|---|---|---|---|---|---|---|
{stores}
"""


def svg(results: dict[str, Any]) -> str:
    """Bars of the stages' times."""
    rows = {name: results["stages"][name] for name in _STAGES if name in results["stages"]}
    rows["whole"] = results["retrieval_p50_ms"]
    scale = (_WIDTH - _LABELS - 110) / (max(rows.values()) or 1)
    height = _TOP + len(rows) * (_BAR + _GAP) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="13" fill="#222">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="24" font-size="15">One retrieval, p50: nDCG@10 {results["ndcg10"]}, '
        f"{results['retrieval_over_embed']} times its embedding</text>",
    ]
    for number, (name, milliseconds) in enumerate(rows.items()):
        top = _TOP + number * (_BAR + _GAP)
        width = milliseconds * scale
        colour = "#2b6cb0" if name == "whole" else "#a0aec0"
        parts += [
            f'<text x="{_LABELS - 10}" y="{top + 17}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LABELS}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>',
            f'<text x="{_LABELS + width + 8:.1f}" y="{top + 17}">{milliseconds} ms</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
