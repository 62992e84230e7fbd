"""The processes of a local cluster, by what they are called."""

import contextlib

import psutil


def processes(words: str) -> list[psutil.Process]:
    """Those that this one has begun, or its children, whose command begins with ``words``."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile
            if " ".join(process.cmdline()).startswith(words):
                found.append(process)
    return found
