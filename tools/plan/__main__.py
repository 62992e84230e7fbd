"""``python -m tools.plan FILE…``: nodes, cost, what fits and how long it takes to start, of values files."""

import argparse
import sys
import tempfile
from pathlib import Path

from tools.gotools import ToolUnavailable, helm
from tools.plan import table
from tools.plan.release import read, render
from tools.plan.report import report


def main() -> int:
    """Print the plan; the exit code."""
    parser = argparse.ArgumentParser(prog="make plan", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="values files, as helm takes them (FILE=, ENVIRONMENT=)")
    parser.add_argument("--weights", nargs="*", default=[], metavar="MODEL=GB", help="what no name says (WEIGHTS=)")
    arguments = parser.parse_args()
    try:
        told_gb = {name: float(size) for name, _, size in (one.partition("=") for one in arguments.weights)}
        with tempfile.TemporaryDirectory() as scratch:
            release = read(render(helm(), arguments.files, Path(scratch)))
    except (ToolUnavailable, ValueError) as error:
        print(f"plan: {error}", file=sys.stderr)
        return 1
    print(report(release, table.read(), told_gb))
    print("\nFigures and their sources: charts/llm-serving/plan.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
