"""Ports of this machine."""

import random
import socket

#: Below those that the kernel gives to whoever asks for any, connections included; between those that Ray gives to its
#: workers and those that Serve gives to replicas. Nobody gets one by chance before its program listens there.
_RANGE = range(20_000, 30_000)
_given: set[int] = set()


def free_port() -> int:
    """A TCP port that is free now on every address, and another one each time."""
    chosen = random.SystemRandom()
    while True:
        port = chosen.choice(_RANGE)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
