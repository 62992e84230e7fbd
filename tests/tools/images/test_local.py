import os
from pathlib import Path

import pytest

from tools.images import local
from tools.images.debian import Base
from tools.images.image import IMAGES

#: Keeps its images as files; what it makes has the digest that the file `next` holds.
BUILDAH = """#!/bin/sh
cd "$FAKE"
echo "${@#*/buildah/}" >> calls
shift 6
case $1 in
    images) for name; do :; done; cat "images/$(echo "${name#reference=}" | tr / _)" 2>/dev/null || true ;;
    build)
        while [ $# -gt 0 ]; do
            [ "$1" = --tag ] && tag=$2
            [ "$1" = --iidfile ] && file=$2
            shift
        done
        cat next > "images/$(echo "$tag" | tr / _)"
        if [ -n "$file" ]; then cat next > "$file"; fi ;;
esac
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a buildah that has the base image."""
    program = tmp_path / "bin" / "buildah"
    program.parent.mkdir()
    program.write_text(BUILDAH)
    program.chmod(0o755)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / Base().reference.replace("/", "_")).write_text(f"sha256:{'b' * 64}\n")
    (tmp_path / "next").write_text(f"sha256:{'1' * 64}\n")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("LLM_SERVING_CACHE", str(tmp_path / "cache"))
    return tmp_path


def commands(fake: Path) -> list[str]:
    """What buildah was asked to do, without its first arguments."""
    return [line.split("overlay ")[1] for line in (fake / "calls").read_text().splitlines()]


def test_an_image_is_built_on_the_local_base(fake: Path) -> None:
    assert local.build("ray-vllm-cpu") == "1" * 64
    build = next(command for command in commands(fake) if command.startswith("build"))
    assert f"--tag docker.io/{IMAGES['ray-vllm-cpu'].reference}" in build
    assert "--build-arg LOCK=images/ray-vllm/requirements-cpu.txt" in build
    assert f"--build-arg BASE_IMAGE={Base().reference} ." in build


def test_buildah_keeps_to_a_storage_of_its_own(fake: Path) -> None:
    local.build("pause")
    storage = fake / "cache" / "buildah"
    for call in (fake / "calls").read_text().splitlines():
        assert call.startswith(f"--root {storage}/root --runroot {storage}/run --storage-driver overlay ")


def test_stages_stay_when_the_rest_of_an_earlier_build_goes(fake: Path) -> None:
    local.build("ray-serve")
    names = [command.split()[0] for command in commands(fake)]
    assert names == ["images", "images", "build", "build", "build", "rm", "rmi"]
    assert "--tag localhost/stages/ray-serve:packages --target packages" in commands(fake)[3]
    assert "--tag localhost/stages/ray-serve:apps --target apps" in commands(fake)[4]
    assert commands(fake)[-1] == "rmi --prune"


def test_what_is_built_is_found_without_a_build(fake: Path) -> None:
    local.build("ray-serve")
    (fake / "calls").unlink()
    assert local.build("ray-serve") == "1" * 64
    assert [command.split()[0] for command in commands(fake)] == ["images", "images"]


def test_an_image_that_is_gone_is_built_again(fake: Path) -> None:
    local.build("redis")
    next((fake / "images").glob("*redis*")).unlink()
    (fake / "calls").unlink()
    local.build("redis")
    assert "build" in [command.split()[0] for command in commands(fake)]


def test_an_archive_has_the_name_that_pods_use(fake: Path) -> None:
    archive = fake / "redis.tar"
    archive.write_text("of before")
    local.export("redis", archive)
    assert commands(fake)[-1] == f"push {'1' * 64} docker-archive:{archive}:docker.io/library/redis:8.2"
    assert not archive.exists()


@pytest.mark.parametrize(
    ("name", "stages"), [("ray-serve", ["packages", "apps"]), ("ray-vllm", ["packages", "apps"]), ("redis", [])]
)
def test_the_stages_are_the_dockerfiles(name: str, stages: list[str]) -> None:
    assert local.stages(IMAGES[name]) == stages


def test_pip_is_told_the_index_of_this_machine_and_nothing_else() -> None:
    settings = """\
:env:.index-url='https://user:secret@index.example/simple'
:env:.find-links='/somewhere'
global.index-url='https://other.example/simple'
global.trusted-host='index.example'
"""
    assert local.pip_conf(settings) == (
        "[global]\nindex-url = https://user:secret@index.example/simple\ntrusted-host = index.example\n"
    )


def test_without_an_index_of_its_own_pip_uses_its_default() -> None:
    assert local.pip_conf("global.cert='/etc/ssl/ca.pem'\n") == "[global]\n"
