"""The CPU variant's stand-ins for CUDA's libraries, with libraries of our own."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.images.dockerfile import REPOSITORY


@pytest.fixture
def without_gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("without_gpu", REPOSITORY / "images/ray-vllm/without_gpu.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def library(path: Path, source: str, *flags: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-shared", "-fPIC", "-o", str(path), "-x", "c", "-", "-x", "none", *flags]
    subprocess.run(command, input=source, text=True, check=True)
    return path


def call(path: Path, function: str) -> subprocess.CompletedProcess[str]:
    """Load a library in a process of its own, as Python loads its modules, and call a function there."""
    code = f"import ctypes; print(ctypes.CDLL({str(path)!r}).{function}())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("version", ["", "CUDA_13 { global: *; };"])
def test_a_caller_is_loaded_and_only_a_call_ends_the_process(
    without_gpu: ModuleType, tmp_path: Path, version: str
) -> None:
    script = tmp_path / "script"
    script.write_text(version)
    flags = ["-Wl,-soname,libgpu.so.1", *([f"-Wl,--version-script,{script}"] if version else [])]
    gpu = library(tmp_path / "libgpu.so.1", "int count(void) { return 4; } int other(void) { return 5; }", *flags)
    source = "int count(void); int on_gpu(void) { return count(); } int on_cpu(void) { return 7; }"
    caller = library(tmp_path / "libcaller.so", source, str(gpu), f"-Wl,-rpath,{tmp_path}")
    assert call(caller, "on_gpu").stdout == "4\n"

    offered = without_gpu.symbols(gpu, "--defined-only")
    without_gpu.replace(gpu, [symbol for symbol in offered if symbol[0] == "count"])

    assert call(caller, "on_cpu").stdout == "7\n"
    ended = call(caller, "on_gpu")
    assert ended.returncode < 0
    assert ended.stderr == "count: taken out of this image, which is for CPUs\n"
    assert "other" not in dict(without_gpu.symbols(gpu, "--defined-only"))


def test_packages_keep_what_torch_is_linked_to(without_gpu: ModuleType, tmp_path: Path) -> None:
    for name in (*without_gpu.REPLACED, *without_gpu.KEPT, "cudnn/lib/libcudnn_engines.so.9"):
        library(tmp_path / "nvidia" / name, "int x;")
    for name in (*without_gpu.CALLERS, *without_gpu.REMOVED):
        if name.endswith(".so"):
            library(tmp_path / name, "int x;")
        else:
            (tmp_path / name).mkdir(parents=True)

    without_gpu.main(tmp_path)

    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {
        *without_gpu.CALLERS,
        *(f"nvidia/{name}" for name in (*without_gpu.REPLACED, *without_gpu.KEPT)),
    }


def test_a_release_with_other_files_fails_the_build(without_gpu: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="triton"):
        without_gpu.main(tmp_path)
