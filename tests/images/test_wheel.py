"""The wheel that both images bake, built as their Dockerfiles build it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.images.dockerfile import REPOSITORY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    context = tmp_path_factory.mktemp("context")
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(REPOSITORY / name, context)
    shutil.copytree(REPOSITORY / "serve_apps", context / "serve_apps", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    subprocess.run([*build, "--wheel-dir", "dist", "."], cwd=context, check=True)
    return zipfile.ZipFile(next((context / "dist").glob("*.whl")))


def test_it_has_every_file(wheel: zipfile.ZipFile) -> None:
    files = [path for path in (REPOSITORY / "serve_apps").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == {str(path.relative_to(REPOSITORY)) for path in files}


def test_rays_proxy_can_be_executed(wheel: zipfile.ZipFile) -> None:
    assert wheel.getinfo("serve_apps/haproxy").external_attr >> 16 & 0o111


def test_it_carries_the_licence(wheel: zipfile.ZipFile) -> None:
    text = next(name for name in wheel.namelist() if name.endswith("licenses/LICENSE"))
    assert wheel.read(text) == Path(REPOSITORY / "LICENSE").read_bytes()
