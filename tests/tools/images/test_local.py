import json
import os
import tarfile
from collections.abc import Collection
from pathlib import Path

import pytest

from tools.images import image, layers, local
from tools.images.debian import Base
from tools.images.image import IMAGES

STAGES = ["packages", "apps", "runtime"]
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
    inspect) cat inspected ;;
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
    build = next(
        command for command in commands(fake) if f"--tag docker.io/{IMAGES['ray-vllm-cpu'].reference}" in command
    )
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
    assert names == ["images", "images", "build", "build", "build", "build", "rm", "rmi"]
    stages = " ".join(commands(fake)[4:6])
    assert "--tag localhost/stages/ray-serve:packages --target packages" in stages
    assert "--tag localhost/stages/ray-serve:apps --target apps" in stages
    assert commands(fake)[-1] == "rmi --prune"


def test_a_change_of_our_code_begins_with_all_else_as_it_is(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "repository" / "serve_apps" / "app.py"
    recipe = tmp_path / "repository" / "images" / "ray-serve" / "Dockerfile"
    for file in (code, recipe):
        file.parent.mkdir(parents=True)
        file.touch()
    monkeypatch.setattr(image, "REPOSITORY", tmp_path / "repository")
    begun = "--build-context runtime=container-image://localhost/stages/ray-serve:runtime"
    for changed, made in ((code, False), (recipe, True)):
        local.build("ray-serve")
        (fake / "calls").unlink()
        changed.write_text("changed")
        local.build("ray-serve")
        builds = [command for command in commands(fake) if command.startswith("build")]
        assert begun in builds[-1]
        assert any("--tag localhost/stages/ray-serve:runtime --target runtime" in one for one in builds) is made


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


def exported(fake: Path, monkeypatch: pytest.MonkeyPatch, held: Collection[str] = ()) -> dict[str, bytes]:
    """The files of an archive of redis, whose layers are called one and two."""
    manifest = {"config": {"digest": "sha256:config"}, "layers": [{"digest": "sha256:one"}, {"digest": "sha256:two"}]}
    (fake / "inspected").write_text(json.dumps({"Manifest": json.dumps(manifest), "Config": "{}"}))
    monkeypatch.setattr(layers, "write", lambda storage, digest, to: to.write_text(f"{storage.name} {digest}"))
    archive = fake / "redis.tar"
    archive.write_text("of before")
    local.export("redis", archive, held)
    with tarfile.open(archive) as files:
        return {file.name: content.read() for file in files if (content := files.extractfile(file))}


def test_an_archive_has_the_name_that_pods_use(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = exported(fake, monkeypatch)
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (described,) = json.loads(files["index.json"])["manifests"]
    assert described["annotations"] == {"io.containerd.image.name": "docker.io/library/redis:8.2"}
    manifest = files[f"blobs/{described['digest'].replace(':', '/')}"]
    assert json.loads(manifest)["config"] == {"digest": "sha256:config"}
    assert described["size"] == len(manifest)
    assert f"inspect --type image {'1' * 64}" in commands(fake)


def test_an_archive_has_the_layers_that_its_receiver_has_not(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert exported(fake, monkeypatch)["blobs/sha256/one"] == b"root sha256:one"
    files = exported(fake, monkeypatch, held={"sha256:one"})
    assert "blobs/sha256/one" not in files
    assert files["blobs/sha256/two"] == b"root sha256:two"


@pytest.mark.parametrize(("name", "stages"), [("ray-serve", STAGES), ("ray-vllm", STAGES), ("redis", [])])
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
