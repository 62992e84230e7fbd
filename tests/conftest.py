"""What tests that share a process owe each other, and how many processes there are."""

import functools
import logging
import os
import signal
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from serve_apps.common.imports import uncollected

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

#: Before any test module is imported.
_ROOT_LEVEL = logging.root.level


def pytest_configure() -> None:
    """Set what all tests have in common."""
    # Programs that tests start end with Ctrl-C, also where the tests were started in a shell's background.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Each of thousands of HTTP clients would read the certificates of all authorities, half of a short test's time.
    ssl.create_default_context = functools.cache(ssl.create_default_context)  # type: ignore[assignment]
    # As in the chart's pods; some tests have a Serve of their own.
    os.environ["RAY_SERVE_CONTROL_LOOP_INTERVAL_S"] = "0.5"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Import all tests, and with them vLLM, in four fifths of the time."""
    with uncollected():
        return (yield)


#: Folders whose tests stay in one process together, as elsewhere those of a file: they share clusters, and two with
#: real models would not fit into 24 GB.
WITH_CLUSTERS = ("tests/serve/", "tests/demo/")
#: Of those, some whose clusters are their own and small, and have no Serve that would want the same ports.
WITH_THEIR_OWN = ("tests/serve/test_batch_job.py", "tests/serve/test_ingest_job.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """As many as cores, hyperthreads too; with clusters, a process keeps more than one of them busy."""
    return max(2, os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadFileScheduling":
    """By files, but for tests with clusters."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            together = nodeid.startswith(WITH_CLUSTERS) and not nodeid.startswith(WITH_THEIR_OWN)
            return "clusters" if together else super()._split_scope(nodeid)

    return Scheduling(config, log)


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
