"""Take out of the CPU variant what only a GPU runs: 3.4 GB that its lock cannot leave out.

An index has one torch of a release, the one for CUDA, and its own library for GPUs is linked to CUDA's. Where there is
no GPU nothing calls those, so each is replaced by a library of the same name whose functions end the process.
Runs while the image is built, with gcc and nm; the stage that is shipped has neither.
"""

import shutil
import subprocess
import sys
from pathlib import Path

#: Removed, below site-packages: what is looked for only when it is used, or by who compiles.
REMOVED = ("triton", "torch/include", "torch/lib/libtorch_cuda_linalg.so")
#: The libraries that are linked to CUDA's.
CALLERS = ("torch/lib/libtorch_cuda.so", "torch/lib/libtorch_nvshmem.so", "torch/lib/libtorch_python.so")
#: Replaced, below nvidia/. Of the rest there, only what is kept stays.
REPLACED = (
    "cu13/lib/libcublas.so.13",
    "cu13/lib/libcublasLt.so.13",
    "cu13/lib/libcufft.so.12",
    "cu13/lib/libcurand.so.10",
    "cu13/lib/libcusparse.so.12",
    "cu13/lib/libnvrtc.so.13",
    "cusparselt/lib/libcusparseLt.so.0",
    "nccl/lib/libnccl.so.2",
    "nvshmem/lib/libnvshmem_host.so.3",
)
#: Small ones. CUDA's runtime library is what counts the GPUs, and finds none.
KEPT = (
    "cu13/lib/libcudart.so.13",
    "cu13/lib/libcufile.so.0",
    "cu13/lib/libcupti.so.13",
    "cudnn/lib/libcudnn.so.9",
)
PROLOGUE = """
#include <stdio.h>
#include <stdlib.h>
static void end(const char *name)
{
    fprintf(stderr, "%s: taken out of this image, which is for CPUs\\n", name);
    abort();
}
"""


def main(packages: Path) -> None:
    """Change the packages in place.

    Raises:
        FileNotFoundError: a release has other files, which the lists above must follow.
        CalledProcessError: a program failed.
    """
    for name in REMOVED:
        path = packages / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    called = {symbol for name in CALLERS for symbol, _ in symbols(packages / name, "--undefined-only")}
    nvidia = packages / "nvidia"
    for name in REPLACED:
        replace(nvidia / name, [one for one in symbols(nvidia / name, "--defined-only") if one[0] in called])
    for file in [path for path in nvidia.rglob("*") if path.is_file()]:
        if str(file.relative_to(nvidia)) not in REPLACED + KEPT:
            file.unlink()
    for name in KEPT:
        (nvidia / name).stat()


def symbols(library: Path, which: str) -> list[tuple[str, str]]:
    """The dynamic symbols of ``library``, each with its version, which is empty for most."""
    command = ["nm", "--dynamic", "--format=posix", which, library]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    parted = (line.split()[0].partition("@") for line in printed.splitlines())
    return [(name, version.lstrip("@")) for name, _, version in parted]


def replace(library: Path, offered: list[tuple[str, str]]) -> None:
    """Put a library in the place of ``library`` that has the symbols ``offered`` and nothing behind them."""
    functions = [f'void {name}(void) {{ end("{name}"); }}' for name, _ in offered]
    source = "\n".join([PROLOGUE, *functions])
    command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", library, "-x", "c", "-"]
    # A caller that was linked to a version insists on it.
    if versions := {version for _, version in offered if version}:
        script = library.with_suffix(".map")
        script.write_text("".join(f"{version} {{ global: *; }};\n" for version in versions))
        command.insert(1, f"-Wl,--version-script,{script}")
    subprocess.run(command, input=source, text=True, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
