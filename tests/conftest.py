"""What tests that share a process owe each other."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _root_log_level() -> Iterator[None]:
    """Take back what an import did to the log: vLLM's API server brings a library that keeps all but errors out."""
    level = logging.root.level
    yield
    logging.root.setLevel(level)
