"""``python -m tools.doctor FILE…``: checks the cluster of KUBECONFIG for a release with these values."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tools.demo.rendered import CHART, REPOSITORY
from tools.doctor.checks import Versions, findings
from tools.doctor.cluster import read
from tools.doctor.wanted import wanted
from tools.gotools import ToolUnavailable, binary, helm
from tools.plan.release import render

#: For one question; a cluster that is slower is not well.
TIMEOUT_S = 60


class CannotAsk(Exception):
    """The cluster cannot be asked; the message is kubectl's."""


def kubectl(*arguments: str) -> str:
    """What kubectl prints, the user's own or the pinned one, with the user's configuration.

    Raises:
        CannotAsk: it failed, or took too long.
    """
    command = [shutil.which("kubectl") or str(binary("kubectl")), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as slow:
        raise CannotAsk(f"kubectl {arguments[0]}: no answer within {TIMEOUT_S} s") from slow
    if done.returncode:
        *_, reason = done.stderr.strip().split("\n")  # before it kubectl logs each of its attempts
        raise CannotAsk(f"kubectl {' '.join(arguments[:2])}: {reason}")
    return done.stdout


def versions() -> Versions:
    """What the chart is made for: its own bound, and what versions.yaml says is tested."""
    stated = yaml.safe_load((REPOSITORY / "versions.yaml").read_text())
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return Versions(
        kubernetes=chart["kubeVersion"].removeprefix(">=").removesuffix("-0"),
        tested_kubernetes=stated["tools"]["kubernetes"]["version"],
        kuberay=stated["definitions"]["github.com/ray-project/kuberay/ray-operator"],
        chart=chart["appVersion"],
        ray=stated["packages"]["ray"],
        vllm=stated["packages"]["vllm"],
    )


def main() -> int:
    """Print the findings; 0 if all is well, 1 if something is to be fixed, 2 if the cluster cannot be asked."""
    parser = argparse.ArgumentParser(prog="make doctor", description=__doc__)
    default = [REPOSITORY / "values" / "rag.yaml"]
    parser.add_argument("files", nargs="*", type=Path, default=default, help="values files (FILE=, ENVIRONMENT=)")
    parser.add_argument("--namespace", help="of the release; that of the kubeconfig unless given (NAMESPACE=)")
    arguments = parser.parse_args()
    in_namespace = [f"--namespace={arguments.namespace}"] if arguments.namespace else []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            needed = wanted(render(helm(), arguments.files, Path(scratch)))
        cluster = read(lambda *words: kubectl(*words, *in_namespace), image_volumes=needed.image_volumes)
    except (CannotAsk, ToolUnavailable, ValueError) as error:
        print(f"doctor: {error}", file=sys.stderr)
        return 2
    found = list(findings(cluster, needed, versions()))
    for one in found:
        print(one)
    return 0 if all(one.well for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
