"""``make bench-rag DATA=folder``: measure retrieval through the app; writes bench/results/rag.{md,json,svg}."""

import argparse
import sys
from pathlib import Path
from typing import Any

import orjson

from bench.gateway.rounds import say
from bench.rag import measure, store
from bench.rag.app import StageTimes, embedder, rag_app
from bench.rag.collection import CollectionError, read
from bench.rag.report import markdown, svg

RESULTS = Path(__file__).parents[1] / "results"
#: Beside the checkout, as ../shared/data/README.md describes it.
CRANFIELD = Path(__file__).parents[3] / "shared" / "data" / "cranfield"


def main(arguments: list[str] | None = None) -> int:
    """Measure and write; the exit code."""
    parser = argparse.ArgumentParser(prog="make bench-rag", description=__doc__)
    parser.add_argument("data", metavar="DATA", nargs="?", type=Path, default=CRANFIELD, help="the collection's folder")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the folder for the results")
    parser.add_argument("--chunks", type=int, default=100_000, help="of the larger of the two stores")
    options = parser.parse_args(arguments)
    try:
        collection = read(options.data)
    except CollectionError as error:
        print(f"bench-rag: {error}", file=sys.stderr)
        return 1
    results: dict[str, Any] = {"command": f"make bench-rag DATA=…/{options.data.resolve().name}", **measure.setting()}
    stores = []
    for chunks in sorted({10_000, options.chunks}):
        say(f"the store alone, with {chunks:,} chunks")
        stores.append(store.measured(chunks))
    results |= {
        "ann_recall10": stores[0]["recall10"],
        "search_p50_ms_10k": stores[0]["search_p50_ms"],
        "stores": stores,
    }
    times = StageTimes()
    say("the embedder starts")
    with embedder() as url, rag_app(url, times) as client:
        say(f"{len(collection.documents):,} documents are taken in, {len(collection.questions)} questions asked")
        results |= measure.quality(client, times, collection)
        say("questions one after the other")
        results |= measure.speed(client, times, list(collection.questions.values()))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "rag.json").write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2) + b"\n")
    (options.output / "rag.md").write_text(markdown(results))
    (options.output / "rag.svg").write_text(svg(results))
    print(
        f"nDCG@10 {results['ndcg10']}, recall@100 {results['recall100']}; "
        f"retrieval {results['retrieval_over_embed']} times its embedding; "
        f"search among 10,000 chunks {results['search_p50_ms_10k']} ms, recall@10 {results['ann_recall10']}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
