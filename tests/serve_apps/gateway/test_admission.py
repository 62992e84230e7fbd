import asyncio

import pytest

from serve_apps.common.errors import RateLimited
from serve_apps.common.middleware import Message
from serve_apps.gateway.admission import Memory, Queues, Slots
from serve_apps.gateway.config import BACKGROUND_PRIORITY, Queue
from serve_apps.gateway.request import Disconnected
from tests.serve_apps.gateway.virtual_time import run

ONE = Queue(max_concurrent=1, max_waiting=1, timeout_s=5)


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


def test_memory_is_held_up_to_its_limit_and_freed() -> None:
    memory = Memory(10)
    with memory.hold() as one, memory.hold() as other:
        one.grow(4)
        other.grow(6)
        with pytest.raises(RateLimited, match="as many bytes of requests as it may, 10") as caught:
            one.grow(1)
        assert caught.value.code == "gateway_overloaded"
    assert memory.held_bytes == 0


def test_a_model_without_a_queue_has_a_place_for_everybody() -> None:
    async def ask() -> int:
        queues, inside = Queues(), 0
        async with queues.turn("chat", None, "a"), queues.turn("chat", None, "b"):
            inside += 1
        return inside

    assert run(ask()) == 1


def test_turns_follow_each_other_and_are_told_of() -> None:
    told: list[tuple[str, float]] = []

    async def ask(queues: Queues) -> None:
        async with queues.turn("chat", ONE, "a"):
            await asyncio.sleep(2)

    async def two() -> None:
        queues = Queues(waiting=lambda *count: told.append(count), waited=lambda *seconds: told.append(seconds))
        await asyncio.gather(ask(queues), ask(queues))

    run(two())
    assert told == [("chat", 0), ("chat", 1), ("chat", 0), ("chat", 2)]


def test_each_model_has_a_queue_of_its_own() -> None:
    async def ask() -> bool:
        queues = Queues()
        async with queues.turn("chat", ONE, "a"), queues.turn("other", ONE, "a"):
            return True

    assert run(ask())


def test_a_turn_is_given_back_when_the_work_fails() -> None:
    async def ask() -> bool:
        queues = Queues()
        for _ in range(2):
            with pytest.raises(ValueError, match="broken"):
                async with queues.turn("chat", ONE, "a"):
                    raise ValueError("broken")
        async with queues.turn("chat", ONE, "a"):
            return True

    assert run(ask())


def test_a_refusal_reaches_the_one_that_waits() -> None:
    async def ask() -> str | None:
        queues = Queues()
        async with queues.turn("chat", ONE, "a"):
            with pytest.raises(RateLimited) as caught:
                async with queues.turn("chat", ONE, "b"):
                    raise AssertionError("there was no place to give")
        return caught.value.code

    assert run(ask()) == "queue_timeout"


def test_a_client_that_leaves_while_it_waits_is_noticed_and_makes_room() -> None:
    counts: list[int] = []

    async def receive() -> Message:
        await asyncio.sleep(1)
        return {"type": "http.disconnect"}

    async def ask() -> None:
        queues = Queues(waiting=lambda _, count: counts.append(count))
        async with queues.turn("chat", ONE, "a"):
            with pytest.raises(Disconnected):
                async with queues.turn("chat", ONE, "b", receive=receive):
                    raise AssertionError("there was no place to give")

    run(ask())
    assert counts == [1, 0]


def test_a_task_that_is_cancelled_while_it_waits_makes_room() -> None:
    async def ask(queues: Queues) -> None:
        async with queues.turn("chat", ONE, "a"):
            await asyncio.sleep(1)

    async def three() -> list[BaseException | None]:
        queues = Queues()
        tasks = [asyncio.ensure_future(ask(queues)) for _ in range(2)]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        await asyncio.sleep(0)
        return list(await asyncio.gather(*tasks, ask(queues), return_exceptions=True))

    first, cancelled, last = run(three())
    assert (first, last) == (None, None)
    assert isinstance(cancelled, asyncio.CancelledError)


@pytest.mark.parametrize("late", ["before", "after"])
def test_a_task_that_is_cancelled_as_it_gets_its_turn_gives_it_back(late: str) -> None:
    async def ask(queues: Queues) -> None:
        async with queues.turn("chat", ONE, "a"):
            await asyncio.sleep(1)

    async def hand_over() -> list[BaseException | None]:
        queues = Queues()
        async with queues.turn("chat", ONE, "a"):
            waiting = asyncio.ensure_future(ask(queues))
            await asyncio.sleep(0)
            if late == "before":
                waiting.cancel()
        if late == "after":
            waiting.cancel()
        return list(await asyncio.gather(waiting, ask(queues), return_exceptions=True))

    cancelled, last = run(hand_over())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert last is None


def test_a_model_that_loses_its_queue_lets_everybody_go() -> None:
    async def ask(queues: Queues, queue: Queue | None) -> float:
        async with queues.turn("chat", queue, "a"):
            await asyncio.sleep(1)
        return asyncio.get_running_loop().time()

    async def change() -> list[float]:
        queues = Queues()
        asked = [asyncio.ensure_future(ask(queues, ONE)) for _ in range(2)]
        await asyncio.sleep(0)
        return list(await asyncio.gather(*asked, ask(queues, None)))

    assert run(change()) == [1, 1, 1]


async def line_beside_a_chat(*, may_end: bool) -> tuple[str | None, float]:
    """The code a line is refused with, if it is, and how long a chat waits for its only place."""
    queues, code = Queues(), None
    now = asyncio.get_running_loop().time

    async def line() -> None:
        async with queues.turn("chat", ONE, "a", BACKGROUND_PRIORITY, may_end=lambda: may_end):
            await asyncio.sleep(3)

    under_way = asyncio.ensure_future(line())
    await asyncio.sleep(1)
    began_s = now()
    async with queues.turn("chat", ONE, "a"):
        waited_s = now() - began_s
    try:
        await under_way
    except RateLimited as refusal:
        code = refusal.code
    return code, waited_s


def test_a_line_makes_room_for_somebody_else() -> None:
    assert run(line_beside_a_chat(may_end=True)) == ("model_overloaded", 0)


def test_a_line_that_is_being_answered_makes_no_room() -> None:
    assert run(line_beside_a_chat(may_end=False)) == (None, 2)


def test_a_line_that_has_not_begun_with_its_place_makes_room_as_well() -> None:
    async def line(queues: Queues) -> None:
        async with queues.turn("chat", ONE, "a", BACKGROUND_PRIORITY):
            await asyncio.sleep(3)

    async def scenario() -> float:
        queues = Queues()
        async with queues.turn("chat", ONE, "a"):
            waiting = asyncio.ensure_future(line(queues))
            await asyncio.sleep(0)
        async with queues.turn("chat", ONE, "a"):  # the line has the place, and does not know yet
            waited_s = asyncio.get_running_loop().time()
        with pytest.raises(RateLimited):
            await waiting
        return waited_s

    assert run(scenario()) == 0


def test_the_end_of_a_line_by_its_own_timeout_is_no_refusal() -> None:
    async def scenario() -> None:
        async with Queues().turn("chat", ONE, "a", BACKGROUND_PRIORITY), asyncio.timeout(1):
            await asyncio.sleep(2)

    with pytest.raises(TimeoutError):
        run(scenario())


@pytest.mark.parametrize(("patience_s", "waited_s"), [(2, 2), (None, ONE.timeout_s), (60, ONE.timeout_s)])
def test_who_has_somewhere_else_to_go_waits_no_longer_than_its_patience(
    patience_s: float | None, waited_s: float
) -> None:
    async def scenario() -> float:
        queues = Queues()
        async with queues.turn("chat", ONE, "acme"):
            began_s = asyncio.get_running_loop().time()
            with pytest.raises(RateLimited) as caught:
                async with queues.turn("chat", ONE, "acme", patience_s=patience_s):
                    raise AssertionError("there was no place to give")
            assert caught.value.code == "queue_timeout"
            return asyncio.get_running_loop().time() - began_s

    assert run(scenario()) == pytest.approx(waited_s)
