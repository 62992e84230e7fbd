"""``make bench-routing TRACE=file.jsonl``: replay a trace and write bench/results/routing.{md,json,svg}."""

import argparse
import sys
from pathlib import Path

import orjson

from bench.routing.measure import measure
from bench.routing.report import markdown, svg
from bench.routing.shapes import SHAPES
from bench.routing.trace import Trace, TraceError, read

RESULTS = Path(__file__).parents[1] / "results"


def main(arguments: list[str] | None = None) -> int:
    """Measure and write; the exit code."""
    parser = argparse.ArgumentParser(prog="make bench-routing", description=__doc__)
    parser.add_argument(
        "trace", metavar="TRACE", help=f"a file in Mooncake's format, or one that is made: {', '.join(SHAPES)}"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="the folder for the results")
    options = parser.parse_args(arguments)
    try:
        trace = _trace(options.trace)
    except TraceError as error:
        print(f"bench-routing: {error}", file=sys.stderr)
        return 1
    shown = f"…/{Path(options.trace).name}" if Path(options.trace).is_absolute() else options.trace
    results = measure(trace, f"make bench-routing TRACE={shown}")
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "routing.json").write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2) + b"\n")
    (options.output / "routing.md").write_text(markdown(results))
    (options.output / "routing.svg").write_text(svg(results))
    print(
        f"{results['hit_ratio_of_bound']:.1%} of the pooled bound at imbalance {results['imbalance']:.2f}; "
        f"decision {results['decision_us']['p50']} us (p99 {results['decision_us']['p99']} us)"
    )
    return 0


def _trace(named: str) -> Trace:
    shape = SHAPES.get(named)
    return read(Path(named)) if shape is None else shape()


if __name__ == "__main__":
    sys.exit(main())
