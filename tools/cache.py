"""The folder for everything that is downloaded, built or converted once; it lies outside the clone."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache() -> Path:
    """LLM_SERVING_CACHE, else ``llm-serving`` below the user's cache folder."""
    if chosen := os.environ.get("LLM_SERVING_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm-serving"


@contextmanager
def alone(lock: Path, waiting_for: str) -> Iterator[None]:
    """Hold the file ``lock``, made where it is missing; while another process has it, wait and say for what."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for {waiting_for} …", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    print(cache())
