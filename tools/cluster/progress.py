"""What the cluster does, line by line on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tools.cluster.errors import Failed

POLL_S = 0.2


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say that ``what`` is being done, and once it is, how many seconds it took."""
    start = time.monotonic()
    print(f"{what} …", file=sys.stderr, flush=True)
    yield
    print(f"  {time.monotonic() - start:5.1f} s  {what}", file=sys.stderr, flush=True)


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float, alive: Callable[[], None]) -> None:
    """Wait until ``condition`` holds; ``alive`` raises where waiting on makes no sense.

    Raises:
        Failed: It did not hold after ``timeout_s`` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        alive()
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not after {timeout_s:.0f} s")
        time.sleep(POLL_S)
