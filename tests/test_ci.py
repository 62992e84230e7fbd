"""CI runs make's targets and nothing of its own, the same ones everywhere."""

import re
import subprocess
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
RUN = REPOSITORY / ".ci" / "run"
WORKFLOW = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yaml").read_text())


def test_both_run_the_same_targets() -> None:
    targets = re.findall(r"(?m)^target (\S+)$", RUN.read_text())
    steps = [step["run"] for step in WORKFLOW["jobs"]["test"]["steps"] if "run" in step]
    assert steps == [f"make {target}" for target in targets]
    assert "test" in targets


def test_a_failing_target_fails_the_run(tmp_path: Path) -> None:
    done = run_with_make(tmp_path, '[ "$1" != tools ]')
    assert done.returncode == 1
    assert "=== make tools: 0 s, exit 1" in done.stdout
    assert "make verify" not in done.stdout


def test_a_target_that_hangs_is_ended_with_a_reason(tmp_path: Path) -> None:
    done = run_with_make(tmp_path, 'if [ "$1" = verify ]; then exec sleep 60; fi', limit_s=2)
    assert done.returncode == 124
    assert "ci: make verify was ended" in done.stderr


def test_targets_that_pass_pass_the_run(tmp_path: Path) -> None:
    assert run_with_make(tmp_path, "exit 0").returncode == 0


def run_with_make(folder: Path, make: str, limit_s: int = 60) -> subprocess.CompletedProcess[str]:
    """Run .ci/run with a make of our own."""
    script = folder / "ci" / "run"
    script.parent.mkdir()
    script.write_text(re.sub(r"LIMIT_S=.*", f"LIMIT_S={limit_s}", RUN.read_text()))
    fake = folder / "make"
    fake.write_text(f"#!/bin/sh\n{make}\n")
    fake.chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}
    return subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
