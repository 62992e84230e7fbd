import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from serve_apps.common.imports import left_out, uncollected


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


def test_what_is_left_out_is_empty_in_the_block_and_whole_afterwards() -> None:
    program = (
        "from serve_apps.common.imports import left_out\n"
        "with left_out('wave'):\n    import wave as empty\n"
        "import wave\nprint(hasattr(empty, 'open'), hasattr(wave, 'open'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


def test_what_is_there_already_is_not_left_out() -> None:
    with left_out("gc"):
        assert sys.modules["gc"] is gc
    assert sys.modules["gc"] is gc
