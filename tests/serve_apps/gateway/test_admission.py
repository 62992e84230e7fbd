import pytest

from serve_apps.common.errors import RateLimited
from serve_apps.gateway.admission import Slots


def test_a_free_slot_is_given_and_given_back() -> None:
    slots = Slots(1, "requests")
    for _ in range(3):
        with slots.take():
            assert slots.taken == 1
    assert slots.taken == 0


def test_when_every_slot_is_taken_the_caller_is_told_when_to_come_back() -> None:
    slots = Slots(1, "requests")
    with slots.take(), pytest.raises(RateLimited, match="busy with 1 requests") as caught, slots.take():
        raise AssertionError("there was no slot to give")
    assert caught.value.headers()["retry-after"] == "1"


def test_our_own_calls_go_beyond_the_limit_and_count() -> None:
    slots = Slots(1, "requests")
    with slots.take(), slots.take(beyond_limit=True):
        assert slots.taken == 2


def test_a_slot_is_given_back_when_the_work_fails() -> None:
    slots = Slots(1, "requests")
    with pytest.raises(ValueError, match="broken"), slots.take():
        raise ValueError("broken")
    assert slots.taken == 0
