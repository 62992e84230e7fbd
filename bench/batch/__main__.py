"""``make bench-batch``: measure batches beside clients; writes bench/results/batch.{md,json}. About eight minutes."""

import argparse
import json
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.batch import measure
from bench.batch.report import markdown
from bench.batch.service import running
from bench.gateway import measures
from bench.gateway.figures import Figure
from bench.gateway.machine import machine
from bench.gateway.measures import Failed
from bench.gateway.rounds import say
from tools.demo.cluster import DeployFailed

RESULTS = Path(__file__).parents[1] / "results"


def main(arguments: list[str] | None = None) -> int:
    """Measure and write; the exit code."""
    parser = argparse.ArgumentParser(prog="make bench-batch", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--rounds", type=int, help="rounds (3; 1 with --quick)")
    parser.add_argument("--output", type=Path, help="the folder to write to (bench/results; with --quick one in /tmp)")
    options = parser.parse_args(arguments)
    output = options.output or (Path(tempfile.mkdtemp(prefix="bench-batch-")) if options.quick else RESULTS)
    before = machine()
    try:
        rounds = _rounds(options.rounds or (1 if options.quick else 3), quick=options.quick)
    except (Failed, DeployFailed, OSError) as error:
        print(f"bench-batch: {error}", file=sys.stderr)
        return 1
    results: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "bench.batch", *(sys.argv[1:] if arguments is None else arguments)]),
        "machine": before,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        **{name: Figure(tuple(one[name] for one in rounds)).document() for name in rounds[0]},
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "batch.json").write_text(json.dumps(results, indent=2) + "\n")
    (output / "batch.md").write_text(markdown(results))
    print(markdown(results))
    say(f"written to {output}")
    return 0


def _rounds(count: int, *, quick: bool) -> list[dict[str, float]]:
    effort = measure.QUICK if quick else measure.Effort()
    say("starting the gateway and the batches")
    with running() as service, measures.client() as client:
        measure.round_of(client, service, measure.QUICK)  # what is done first is slower
        found = []
        for number in range(count):
            say(f"round {number + 1} of {count}")
            found.append(measure.round_of(client, service, effort))
        return found


if __name__ == "__main__":
    sys.exit(main())
