"""The Python environment of every make target: built once from the hashed lock, in the cache, and linked as ``.venv``.

``python3.11 -m tools.environment``. Standard library only, since this runs before there is an environment.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

from tools.cache import alone, cache

REPOSITORY = Path(__file__).parents[1]
LINK = REPOSITORY / ".venv"
PACKAGES = Path(__file__).parent / "python" / "requirements.txt"
#: torch and its CUDA parts, three quarters of the download; not needed where pip offers torch's CPU build.
TORCH = Path(__file__).parent / "python" / "torch.txt"

PYTHON = (3, 11)
#: 7 GB when done, and as much again for pip's downloads while it works.
NEEDED_DISK_GB = 12
#: Written last, so a build that was cut short is seen and made again.
MARKER = "complete"
#: How much of pip's output a failure shows.
SHOWN_LINES = 15


class CannotBuild(Exception):
    """The environment cannot be made here; the message says what to do."""


def main() -> int:
    """Make what is missing, silently if nothing is; the exit code."""
    try:
        check_python(sys.version_info[:2])
        folder = cache() / f"venv-{digest((PACKAGES, TORCH))}"
        make_once(folder, build)
        link(LINK, folder)
    except CannotBuild as error:
        print(f"environment: {error}", file=sys.stderr)
        return 1
    return 0


def check_python(running: tuple[int, ...]) -> None:
    """Refuse another Python than the images have: the lock has no wheels for it.

    Raises:
        CannotBuild: it is another one, or lacks the parts that make environments.
    """
    wanted = ".".join(map(str, PYTHON))
    if running != PYTHON:
        found = ".".join(map(str, running))
        raise CannotBuild(f"this is Python {found}; install Python {wanted}, or name it: make PYTHON=python{wanted} …")
    if not importlib.util.find_spec("ensurepip"):
        raise CannotBuild(f"Python {wanted} lacks ensurepip; install the package python{wanted}-venv")


def check_disk(folder: Path, free_bytes: int) -> None:
    """Refuse a build that would fill the disk.

    Raises:
        CannotBuild: there is too little room.
    """
    if free_bytes < NEEDED_DISK_GB * 1e9:
        raise CannotBuild(
            f"{free_bytes / 1e9:.0f} GB are free at {folder}, {NEEDED_DISK_GB} GB are needed; "
            "make room, or set LLM_SERVING_CACHE to a folder on another disk"
        )


def digest(locks: tuple[Path, ...]) -> str:
    """Names an environment by all that decides what is in it: the locks and the interpreter."""
    name = hashlib.sha256(f"{sys.version} {sys.base_prefix}".encode())
    for lock in locks:
        name.update(lock.read_bytes())
    return name.hexdigest()[:12]


def make_once(folder: Path, make: Callable[[Path], None]) -> None:
    """Have ``make`` fill ``folder`` unless an earlier run did to the end; runs side by side wait for one another."""
    if (folder / MARKER).exists():
        return
    with alone(folder.with_name(f"{folder.name}.lock"), f"another run that builds {folder.name}"):
        if (folder / MARKER).exists():  # another run made it meanwhile
            return
        shutil.rmtree(folder, ignore_errors=True)
        check_disk(folder.parent, shutil.disk_usage(folder.parent).free)
        make(folder)
        (folder / MARKER).touch()


def build(folder: Path) -> None:
    """Create the environment and install the lock into it.

    Raises:
        CannotBuild: pip failed.
    """
    started = time.monotonic()
    say(f"making the Python environment {folder} (once, several minutes)")
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    locks = [PACKAGES] if install_cpu_torch(python, locked_version("torch", TORCH)) else [PACKAGES, TORCH]
    # Each file is hashed; --no-deps because a lock is complete, and because the overrides took some packages out.
    command = [python, "-m", "pip", "install", "--require-hashes", "--no-deps", "--only-binary", ":all:"]
    for lock in locks:
        command += ["--requirement", str(lock)]
    wanted = sum(len(re.findall(r"^[a-z0-9].*==", lock.read_text(), re.MULTILINE)) for lock in locks)
    run_pip(command, wanted)
    say(f"the Python environment is ready ({time.monotonic() - started:.0f} s)")


def locked_version(package: str, lock: Path) -> str:
    """The version that ``lock`` pins ``package`` to."""
    pinned = re.search(rf"^{re.escape(package)}==(\S+)", lock.read_text(), re.MULTILINE)
    if not pinned:
        raise LookupError(f"{lock} does not pin {package}")
    return pinned[1]


def install_cpu_torch(python: str, version: str) -> bool:
    """Install torch's build without CUDA (0.2 instead of 5 GB) if pip's configuration names an index that has it."""
    command = [python, "-m", "pip", "install", "--quiet", "--no-deps", f"torch=={version}+cpu"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def run_pip(command: list[str], wanted: int) -> None:
    """Run pip, and say from time to time how far it is.

    Raises:
        CannotBuild: pip failed; the message ends with its own last lines.
    """
    started = time.monotonic()
    lines: list[str] = []
    fetched = 0
    pip = subprocess.Popen(
        [*command, "--progress-bar", "off"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert pip.stdout is not None
    with pip:
        for line in pip.stdout:
            lines.append(line)
            seconds = f"{time.monotonic() - started:.0f} s"
            if line.startswith("Collecting "):
                fetched += 1
                if fetched % 20 == 0 or fetched == wanted:
                    say(f"  fetching package {fetched} of {wanted} ({seconds})")
            elif line.startswith("Installing collected packages"):
                say(f"  unpacking ({seconds})")
    if pip.returncode:
        raise CannotBuild("pip failed; its last lines:\n" + "".join(lines[-SHOWN_LINES:]).rstrip())


def link(name: Path, folder: Path) -> None:
    """Make ``name`` a link to ``folder``, replacing an older link in one step.

    Raises:
        CannotBuild: ``name`` is something else.
    """
    if name.is_symlink():
        if name.readlink() == folder:
            return
    elif name.exists():
        raise CannotBuild(f"{name} is not a link that make has set; remove it")
    fresh = name.with_name(f"{name.name}.{os.getpid()}")
    fresh.symlink_to(folder)
    fresh.replace(name)


def say(message: str) -> None:
    """Show progress."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
