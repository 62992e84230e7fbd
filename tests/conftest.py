"""What tests that share a process owe each other, and which do where several run side by side (pytest-xdist)."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]  # it has no types

#: One cluster for all of its files.
ONE_FIXTURE = "tests/serve/"


class ByFixtures(LoadFileScheduling):
    """A file's tests share a process, so that its fixtures are made once, and so do those of ``ONE_FIXTURE``."""

    def _split_scope(self, nodeid: str) -> str:
        scope: str = ONE_FIXTURE if nodeid.startswith(ONE_FIXTURE) else super()._split_scope(nodeid)
        return scope


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFixtures | None:
    """How tests are given to processes, in place of ``--dist loadfile``."""
    return ByFixtures(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def _root_log_level() -> Iterator[None]:
    """Take back what an import did to the log: vLLM's API server brings a library that keeps all but errors out."""
    level = logging.root.level
    yield
    logging.root.setLevel(level)
