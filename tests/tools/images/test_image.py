import re
from pathlib import Path

import pytest
import yaml

from tools.images import image
from tools.images.image import IMAGES, RELEASED, REPOSITORY, reference

BAKE = (REPOSITORY / "images" / "docker-bake.hcl").read_text()


@pytest.mark.parametrize(
    ("name", "short", "full"),
    [
        ("ray-serve", "llm-serving/ray-serve:0.1.0", "docker.io/llm-serving/ray-serve:0.1.0"),
        ("ray-vllm", "llm-serving/ray-vllm:0.1.0", "docker.io/llm-serving/ray-vllm:0.1.0"),
        ("ray-vllm-cpu", "llm-serving/ray-vllm:0.1.0-cpu", "docker.io/llm-serving/ray-vllm:0.1.0-cpu"),
        ("redis", "redis:8.2", "docker.io/library/redis:8.2"),
        ("milvus", "milvusdb/milvus:v2.6.24", "docker.io/milvusdb/milvus:v2.6.24"),
        ("pause", "localhost/pause:3", "localhost/pause:3"),
    ],
)
def test_containerd_finds_an_image_by_the_name_in_a_pod(name: str, short: str, full: str) -> None:
    assert (reference(name), IMAGES[name].full_reference) == (short, full)


def test_the_names_are_the_charts() -> None:
    values = yaml.safe_load((REPOSITORY / "charts" / "llm-serving" / "values.yaml").read_text())
    assert {name: values[name]["image"] for name in ("redis", "milvus")} == {
        name: reference(name) for name in ("redis", "milvus")
    }


@pytest.mark.parametrize("name", sorted(RELEASED))
def test_docker_bake_builds_the_same(name: str) -> None:
    found = re.search(rf'target "{name}" {{(.*?)\n}}', BAKE, re.DOTALL)
    assert found
    image = IMAGES[name]
    assert f'dockerfile = "{image.folder}/Dockerfile"' in found[1]
    for argument, value in image.build_arguments:
        assert f'{argument} = "{value}"' in found[1]
    assert f'tags       = ["${{REGISTRY}}{image.name.format(version="${VERSION}")}"]' in found[1]


def test_docker_bake_has_no_other_image() -> None:
    assert set(re.findall(r'^target "([a-z-]+)"', BAKE, re.MULTILINE)) == set(RELEASED)


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_what_is_named_is_there(name: str) -> None:
    image = IMAGES[name]
    assert (REPOSITORY / image.folder / "Dockerfile").is_file()
    assert all((REPOSITORY / value).is_file() for _, value in image.build_arguments)


def test_the_digest_follows_code_recipe_and_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "REPOSITORY", tmp_path)
    for name in ("LICENSE", "pyproject.toml", "images/ray-serve/Dockerfile", "serve_apps/app.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    serve = IMAGES["ray-serve"]
    digests = [serve.digest("a"), serve.digest("b"), IMAGES["ray-vllm"].digest("a")]
    for name in ("images/ray-serve/Dockerfile", "serve_apps/app.py"):
        (tmp_path / name).write_text("changed")
        digests.append(serve.digest("a"))
    assert len(set(digests)) == 5
    (tmp_path / "serve_apps" / "__pycache__").mkdir()
    (tmp_path / "serve_apps" / "__pycache__" / "app.pyc").write_text("compiled")
    assert serve.digest("a") == digests[-1]
