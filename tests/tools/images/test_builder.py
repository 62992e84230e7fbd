from pathlib import Path

import pytest

from tests.tools.images.programs import program
from tools.images.builder import CannotBuild, builder


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of one folder."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_first_builder_that_works_builds(path: Path) -> None:
    program(path, "docker", works=False)
    program(path, "buildah", works=True)
    assert builder() == ("buildah", "build", "--format", "docker", "--layers")


def test_without_a_builder_the_message_lists_them(path: Path) -> None:
    with pytest.raises(CannotBuild, match=r"^no docker, podman, buildah found; install one of them$"):
        builder()


def test_a_builder_that_cannot_run_is_named(path: Path) -> None:
    program(path, "docker", works=False)
    with pytest.raises(CannotBuild, match=r"^docker cannot run here \(`docker info` says why\)$"):
        builder()
