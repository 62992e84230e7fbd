"""Compile Triton's binding to the GPU's driver into a folder, where the script triton-cc finds it at run time.

Triton compiles this one C file when a process first uses the GPU; its kernels it compiles itself, without a C
compiler. Runs while the image is built, on a machine without a GPU: an empty library stands in for the driver, whose
functions are found when the binding is loaded beside the real one.
"""

import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import distribution
from pathlib import Path

DRIVER = "libcuda.so.1"


def main(folder: Path) -> None:
    """Write ``cuda_utils.so`` into ``folder``.

    Raises:
        CalledProcessError: the compiler failed.
    """
    binding = Path(str(distribution("triton").locate_file("triton/backends/nvidia")))
    headers = (binding / "include", sysconfig.get_path("include"))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        empty = Path(scratch) / "empty.c"
        empty.touch()
        stub = Path(scratch) / DRIVER
        compile_library(stub, empty, f"-Wl,-soname,{DRIVER}")
        # Linked although the stub offers nothing, so that loading the binding loads the driver.
        linked = (f"-L{scratch}", "-Wl,--no-as-needed", f"-l:{DRIVER}")
        compile_library(folder / "cuda_utils.so", binding / "driver.c", *(f"-I{one}" for one in headers), *linked)


def compile_library(library: Path, source: Path, *flags: str) -> None:
    """Make a shared library of one C file."""
    subprocess.run(["gcc", "-shared", "-fPIC", "-O3", "-o", library, source, *flags], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
