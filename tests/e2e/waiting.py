"""Waiting for what a cluster will do in its own time; a wait that is too long says for what, and what was seen last.

What a wait is allowed is three times what has been seen, at least: a machine may be slower, or have other work.
"""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")
logger = logging.getLogger(__name__)

#: Between two looks, in seconds: each is a kubectl, and the cores belong to what is waited for.
INTERVAL_S = 1.0
#: Of what was seen last, in characters.
SHOWN = 2000


class TooLate(AssertionError):
    """Something did not happen in time."""


def until(what: str, look: Callable[[], Seen], holds: Callable[[Seen], object], timeout_s: float) -> Seen:
    """What ``look`` sees once ``holds`` of it; ``what`` says what is waited for, as a sentence.

    Raises:
        TooLate: It did not come to hold within ``timeout_s``.
    """
    began = time.monotonic()
    while not holds(seen := look()):
        if time.monotonic() - began > timeout_s:
            raise TooLate(f"not within {timeout_s:.0f} s: {what}; seen last: {str(seen)[:SHOWN]}")
        time.sleep(INTERVAL_S)
    if (took_s := time.monotonic() - began) > 3 * INTERVAL_S:
        logger.info("%s (%.0f s)", what, took_s)
    return seen
