import re
import sys
from pathlib import Path

import pytest

from tools import images
from tools.images import IMAGES, CannotBuild, builder

BAKE = (images.REPOSITORY / "images" / "docker-bake.hcl").read_text()


def program(folder: Path, name: str, *, works: bool) -> None:
    """Put a builder into ``folder`` that records how it was called."""
    file = folder / name
    file.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\nexit {0 if works else 1}\n')
    file.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of one folder."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_first_builder_that_works_builds(path: Path) -> None:
    program(path, "docker", works=False)
    program(path, "buildah", works=True)
    assert builder() == ("buildah", "build", "--format", "docker")


def test_without_a_builder_the_message_lists_them(path: Path) -> None:
    with pytest.raises(CannotBuild, match=r"^no docker, podman, buildah found; install one of them$"):
        builder()


def test_a_builder_that_cannot_run_is_named(path: Path) -> None:
    program(path, "docker", works=False)
    with pytest.raises(CannotBuild, match=r"^docker cannot run here \(`docker info` says why\)$"):
        builder()


def test_images_are_built_from_their_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(path, "podman", works=True)
    monkeypatch.setattr(sys, "argv", ["images", "ray-vllm-cpu", "--registry", "example.com/ml/", "--base", "python@x"])
    assert images.main() == 0
    _, call = (path / "calls").read_text().splitlines()
    assert call == (
        "build --file images/ray-vllm/Dockerfile --build-arg LOCK=images/ray-vllm/requirements-cpu.txt "
        "--tag example.com/ml/llm-serving/ray-vllm:0.1.0-cpu --build-arg BASE_IMAGE=python@x ."
    )


def test_an_unknown_image_is_refused_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["images", "vllm"])
    with pytest.raises(SystemExit):
        images.main()
    assert "no such image: vllm; there are ray-serve, ray-vllm, ray-vllm-cpu" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_docker_bake_builds_the_same(name: str) -> None:
    found = re.search(rf'target "{name}" {{(.*?)\n}}', BAKE, re.DOTALL)
    assert found
    image = IMAGES[name]
    assert f'dockerfile = "images/{image.folder}/Dockerfile"' in found[1]
    assert f'LOCK = "images/{image.folder}/{image.lock}"' in found[1]
    assert f'tags       = ["${{REGISTRY}}llm-serving/{image.folder}:${{VERSION}}{image.suffix}"]' in found[1]


def test_docker_bake_has_no_other_image() -> None:
    assert set(re.findall(r'^target "([a-z-]+)"', BAKE, re.MULTILINE)) == set(IMAGES)
