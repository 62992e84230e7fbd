"""Waiting for what a distributed system will do in its own time; a wait that is too long fails with what was seen."""

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

#: Long enough for a busy machine to start replicas of several models; no test passes faster by it or measures it.
PATIENCE_S = 240


def until(look: Callable[[], Seen], holds: Callable[[Seen], bool]) -> Seen:
    """What ``look`` sees once ``holds`` of it.

    Raises:
        AssertionError: it did not come to hold; the message has what was seen last.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not holds(seen := look()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s; seen last: {seen!r}"
        time.sleep(0.5)
    return seen
