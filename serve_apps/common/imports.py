"""Imports of large libraries."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Import something large in the block, without the collector of reference cycles.

    Thousands of modules make millions of objects that stay, and it looks at all of them again and again: for a quarter
    of the time that vLLM takes. Afterwards it never looks at them (`gc.freeze`).
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
