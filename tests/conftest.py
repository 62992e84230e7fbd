"""What tests that share a process owe each other, and how many processes there are."""

import logging
import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

#: Before any test module is imported.
_ROOT_LEVEL = logging.root.level


def pytest_configure() -> None:
    """Have programs that tests start end with Ctrl-C, also where the tests were started in a shell's background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


#: Folders whose tests stay in one process, as elsewhere those of a file: they share a cluster, or two of their clusters
#: would not fit into 24 GB.
TOGETHER = ("tests/serve/", "tests/demo/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two more than cores: half of what tests do is to wait."""
    return (os.cpu_count() or 1) + 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadFileScheduling":
    """By files, and by the folders of which that is not enough."""
    from xdist.scheduler import LoadFileScheduling

    class LoadFolderScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((folder for folder in TOGETHER if nodeid.startswith(folder)), super()._split_scope(nodeid))

    return LoadFolderScheduling(config, log)


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
