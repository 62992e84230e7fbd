"""What tests that share a process owe each other."""

import logging
import signal
from collections.abc import Iterator

import pytest

#: Before any test module is imported.
_ROOT_LEVEL = logging.root.level


def pytest_configure() -> None:
    """Have programs that tests start end with Ctrl-C, also where the tests were started in a shell's background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Take back what imports and replicas do to the log.

    vLLM's API server brings a library that keeps all but errors out; a replica sends what we log to stderr only.
    """
    ours = logging.getLogger("serve_apps")
    before = ours.level, ours.propagate, [*ours.handlers]
    logging.root.setLevel(min(logging.root.level, _ROOT_LEVEL))
    yield
    logging.root.setLevel(min(logging.root.level, _ROOT_LEVEL))
    level, ours.propagate, ours.handlers = before
    ours.setLevel(level)
