"""The doctor as `make doctor` starts it, with a kubectl that prints recorded answers."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.demo.rendered import REPOSITORY


def doctor(kubectl: str, folder: Path, *files: str) -> subprocess.CompletedProcess[str]:
    """``kubectl`` is the body of a program of that name."""
    program = folder / "kubectl"
    program.write_text(f"#!{sys.executable}\nimport sys\n{kubectl}\n")
    program.chmod(0o755)
    return subprocess.run(
        [sys.executable, "-m", "tools.doctor", *files],
        cwd=REPOSITORY,
        env={"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(Path.home()), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


RECORDED = f"""
sys.path.insert(0, {str(REPOSITORY)!r})
from tests.tools.doctor.clusters import kubectl
print(kubectl(*sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("files", "status", "line"),
    [
        # Its two models need two L4, and the quota has room for one.
        ([], 1, "fix  quota team           requests.nvidia.com/gpu: 2 needed and 1 left"),
        ([], 1, "ok   workerGroups.l4      2 pods of 1 GPUs, 3 CPUs and 12Gi; Karpenter may make their nodes"),
        (["values/large-model-tp4.yaml"], 1, "fix  quota team           requests.nvidia.com/gpu: 4 needed and 1 left"),
        (["charts/llm-serving/ci/model-values.yaml"], 0, "ok   KubeRay              1.6.2; tested with 1.6.2"),
        (["tests/chart/cases/image-volumes.yaml"], 1, "fix  image volumes        the feature gate ImageVolume is off"),
        (["values/chat-8b.yaml"], 1, "fix  pods' metrics        nobody offers custom.metrics.k8s.io"),
    ],
)
def test_it_says_what_a_release_lacks(files: list[str], status: int, line: str, tmp_path: Path) -> None:
    done = doctor(RECORDED, tmp_path, *files)
    assert line in done.stdout, done.stderr
    assert done.returncode == status
    assert all(one.startswith(("ok ", "fix")) for one in done.stdout.splitlines())


def test_a_cluster_that_cannot_be_asked_is_said_to_be_so(tmp_path: Path) -> None:
    done = doctor(r"sys.exit('E1128 memcache.go:265 refused\nerror: connection refused')", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "doctor: kubectl get crds: error: connection refused\n"
    assert not done.stdout
