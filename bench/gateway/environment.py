"""The Python environment of the systems that the gateway is compared with.

They need other releases of FastAPI and pydantic than the project, so they get an environment of their own, made once
from the hashed lock ``bench/requirements.txt`` like the project's.
"""

import venv
from pathlib import Path

from tools.cache import cache
from tools.environment import digest, make_once, run_pip, say

LOCK = Path(__file__).parents[1] / "requirements.txt"


def programs() -> Path:
    """The folder with ``python``, ``vllm-router`` and ``litellm``; the environment is made where it is missing.

    Raises:
        tools.environment.CannotBuild: pip failed, or the disk is full.
    """
    folder = cache() / f"bench-{digest((LOCK,))}"
    make_once(folder, _build)
    return folder / "bin"


def release(package: str) -> str:
    """The version of ``package`` that the lock pins."""
    return next(line.split("==")[1].split()[0] for line in LOCK.open() if line.startswith(f"{package}=="))


def _build(folder: Path) -> None:
    say(f"making the Python environment {folder} (once, about a minute)")
    venv.create(folder, with_pip=True)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--require-hashes", "--no-deps"]
    command += ["--only-binary", ":all:", "--requirement", str(LOCK)]
    run_pip(command, sum("==" in line and line[0].isalpha() for line in LOCK.open()))


if __name__ == "__main__":
    print(programs())
