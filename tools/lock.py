"""``python -m tools.lock``: write the lock files, every package pinned and hashed, without the address of an index.

The locks are chained: each one takes over the versions of the one before. So the processes of one Ray cluster, which
send each other pickled objects, run the same releases whatever their image; what is `OWN` they do not send.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
#: torch and what only its CUDA build needs; tools/environment.py leaves these out where pip offers a CPU build.
TORCH = re.compile(r"(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==")
#: What a lock chooses for itself: the client of S3 in the image for GPUs bounds it, and pandas alone has it elsewhere.
OWN = frozenset({"python-dateutil"})


@dataclass(frozen=True)
class Lock:
    """One lock file and what it is made of; paths are relative to the repository."""

    intent: str
    file: str
    overrides: str | None = None
    #: The lock whose versions this one takes over.
    follows: str | None = None
    #: Where torch and its CUDA parts go instead.
    torch_file: str | None = None

    @property
    def files(self) -> list[Path]:
        """The files this lock is written to."""
        return [REPOSITORY / name for name in (self.file, self.torch_file) if name]


LOCKS = (
    Lock(
        "images/ray-vllm/requirements.in",
        "images/ray-vllm/requirements.txt",
        overrides="images/ray-vllm/overrides.txt",
    ),
    Lock(
        "images/ray-vllm/requirements-cpu.in",
        "images/ray-vllm/requirements-cpu.txt",
        overrides="images/ray-vllm/overrides-cpu.txt",
        follows="images/ray-vllm/requirements.txt",
    ),
    Lock(
        "images/ray-serve/requirements.in",
        "images/ray-serve/requirements.txt",
        follows="images/ray-vllm/requirements.txt",
    ),
    Lock("images/build/requirements.in", "images/build/requirements.txt", follows="images/ray-vllm/requirements.txt"),
    Lock(
        "tools/python/requirements.in",
        "tools/python/requirements.txt",
        overrides="tools/python/overrides.txt",
        follows="images/ray-vllm/requirements-cpu.txt",
        torch_file="tools/python/torch.txt",
    ),
    # What the gateway is measured against, in an environment of its own.
    Lock("bench/requirements.in", "bench/requirements.txt"),
)


def compile_lock(lock: Lock, *, upgrade: bool) -> None:
    """Resolve one lock and write its files. Versions stay as they are unless ``upgrade`` or the intent moves them.

    Raises:
        CalledProcessError: uv found no solution; it has printed why.
    """
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "requirements.txt"
        output.write_text("".join(file.read_text() for file in lock.files if file.exists()))
        # fmt: off
        command = [
            sys.executable, "-m", "uv", "pip", "compile", "--quiet", lock.intent, "--output-file", str(output),
            "--generate-hashes", "--no-emit-index-url", "--only-binary", ":all:",
            # glibc 2.34: older than the images' (Debian 12 has 2.36), as new as the newest wheel among these needs.
            "--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_34",
        ]
        # fmt: on
        command += ["--override", lock.overrides] if lock.overrides else []
        constraints = Path(scratch) / "constraints.txt"
        if lock.follows:
            constraints.write_text(constraining((REPOSITORY / lock.follows).read_text()))
            command += ["--constraint", str(constraints)]
        command += ["--upgrade"] if upgrade else []
        environment = {**os.environ, "UV_CUSTOM_COMPILE_COMMAND": "make lock"}
        subprocess.run(command, cwd=REPOSITORY, env=environment, check=True)
        # The comments name the lock that is followed, not the file in between.
        header, packages = split_lock(output.read_text().replace(str(constraints), lock.follows or ""))
    torch = [package for package in packages if lock.torch_file and TORCH.match(package)]
    for file, content in zip(lock.files, ([one for one in packages if one not in torch], torch), strict=False):
        file.write_text(header + "".join(content))


def constraining(text: str) -> str:
    """A lock's packages as constraints for one that follows it."""
    _, packages = split_lock(text)
    named = ((package.partition("==")[0], package) for package in packages)
    return "".join(f"{name}>=0\n" if name in OWN else package for name, package in named)


def split_lock(text: str) -> tuple[str, list[str]]:
    """The comment that opens a lock file, and the lines of each package."""
    header, *packages = re.split(r"(?m)^(?=[a-z0-9])", text)
    return header, packages


def main() -> int:
    """Write every lock; the exit code."""
    parser = argparse.ArgumentParser(prog="make lock", description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions the intents allow")
    upgrade = parser.parse_args().upgrade
    for lock in LOCKS:
        print(f"locking {lock.file} …", file=sys.stderr, flush=True)
        try:
            compile_lock(lock, upgrade=upgrade)
        except subprocess.CalledProcessError as error:
            print(f"lock: {lock.intent} has no solution (above)", file=sys.stderr)
            return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
