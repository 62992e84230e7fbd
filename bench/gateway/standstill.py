"""A Ray node that idles takes a tenth of a core, in bursts; no system pays for another one's.

So of several nodes that are up, those that are not measured stand still. A system without Ray is measured beside what
it is compared with.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil

from bench.gateway.systems import System

#: How long a node that stood still has to catch up, in seconds.
CATCHES_UP_S = 3.0


@contextmanager
def others_still(measured: System, compared: Sequence[System]) -> Iterator[None]:
    """Until the end of the block, no Ray node of ``compared`` does anything but that of ``measured``."""
    if measured.node is None:
        yield
        return
    nodes = {one.node for one in compared if one.node is not None} - {measured.node}
    still = [process for node in nodes for process in node()]
    try:
        for process in still:
            with suppress(psutil.NoSuchProcess):  # it has ended; the others stand still, and go on, all the same
                process.suspend()
        yield
    finally:
        for process in still:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        if still:
            time.sleep(CATCHES_UP_S)
