"""Imports of large libraries."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


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


@contextmanager
def left_out(name: str) -> Iterator[None]:
    """Import something in the block that imports the library ``name``, too, and does not need it here.

    It gets an empty module in its place. Whoever imports the library afterwards gets the library.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = ModuleType(name)
    try:
        yield
    finally:
        del sys.modules[name]
