"""CI runs make's targets and nothing of its own, the same ones everywhere."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.images.image import IMAGES, RELEASED, version

REPOSITORY = Path(__file__).parents[1]
RUN = REPOSITORY / ".ci" / "run"
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yaml"))
WORKFLOW = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yaml").read_text())
RELEASE = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "release.yaml").read_text())


def test_both_run_the_same_targets() -> None:
    targets = re.findall(r"(?m)^target (\S+)$", RUN.read_text())
    steps = [step["run"] for step in WORKFLOW["jobs"]["test"]["steps"] if "run" in step]
    assert steps == [f"make {target}" for target in targets]
    assert "test" in targets


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_may_read_and_pins_what_it_uses_and_shows_no_secret_to_a_shell(file: Path) -> None:
    workflow = yaml.safe_load(file.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for step in steps(workflow):
        assert re.search(r"@v\d+$", step.get("uses", "@v0")), step
        # A secret in a script's text could end it; in its environment it cannot.
        assert "${{" not in step.get("run", ""), step


def test_every_image_is_signed_and_its_contents_attested() -> None:
    (job,) = RELEASE["jobs"].values()
    assert job["permissions"] == {"contents": "write", "id-token": "write"}
    (script,) = (step["run"] for step in steps(RELEASE) if "cosign attest" in step.get("run", ""))
    built = re.search(r'make images NAMES="([^"]+)"', script)
    assert built
    assert set(built[1].split()) == set(RELEASED)
    looped = re.search(r"for image in (.*); do", script)
    assert looped
    references = {f"llm-serving/{image.replace('$version', version())}" for image in looped[1].split()}
    assert references == {IMAGES[name].reference for name in RELEASED}
    for command in ("docker push", "syft", "cosign sign --yes", "cosign attest --yes --type spdxjson"):
        assert command in script.partition(looped[0])[2]


def test_the_chart_is_packaged_before_anything_is_published_and_signed_after() -> None:
    scripts = [step["run"] for step in steps(RELEASE) if "run" in step]
    first, pushed, charts = (
        next(index for index, script in enumerate(scripts) if words in script)
        for words in ("make release VERSION=", "docker push", 'push dist/llm-serving-*.tgz "oci://')
    )
    assert first < pushed < charts
    assert 'cosign sign --yes "$REGISTRY/charts/llm-serving@' in scripts[charts]


def test_the_documents_verify_what_this_workflow_signs() -> None:
    told = (REPOSITORY / "docs" / "releases.md").read_text()
    identity = "https://github.com/$REPOSITORY/.github/workflows/release.yaml@refs/tags/v$VERSION"
    assert told.count(f'--certificate-identity "{identity}"') == 2
    assert RELEASE[True]["push"]["tags"] == ["v*"]  # YAML reads `on` as true
    assert "spdxjson" in told


def test_a_failing_target_fails_the_run(tmp_path: Path) -> None:
    done = run_with_make(tmp_path, '[ "$1" != tools ]')
    assert done.returncode == 1
    assert re.search(r"(?m)^=== make tools: \d+ s, exit 1$", done.stdout)
    assert "make verify" not in done.stdout


def test_a_target_that_hangs_is_ended_with_a_reason(tmp_path: Path) -> None:
    done = run_with_make(tmp_path, 'if [ "$1" = environment ]; then exec sleep 600; fi', limit_s=2)
    assert done.returncode == 124
    assert "ci: make environment was ended" in done.stderr


def test_a_target_that_begins_when_the_time_is_up_is_ended_too(tmp_path: Path) -> None:
    done = run_with_make(tmp_path, "exec sleep 600", limit_s=0)
    assert done.returncode == 124
    assert "ci: make environment was ended" in done.stderr


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
