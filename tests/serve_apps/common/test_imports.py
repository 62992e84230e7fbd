import gc
from collections.abc import Iterator

import pytest

from serve_apps.common.imports import uncollected


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """Whatever a test has frozen is collected again."""
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_in_the_block_and_what_came_there_never_again() -> None:
    gc.unfreeze()
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_a_failed_import_turns_the_collector_on_again() -> None:
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()


def test_who_has_turned_the_collector_off_finds_it_so() -> None:
    gc.unfreeze()
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()
    assert gc.get_freeze_count() == 0
