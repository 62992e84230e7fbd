import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from serve_apps.common.errors import RateLimited
from serve_apps.gateway.config import BACKGROUND_PRIORITY, Queue
from serve_apps.gateway.fairness import ACTIVE_S, GIVEN_IN_A_ROW, SPARE_AFTER_S, Line, Place
from tests.serve_apps.gateway.simulated_load import ANSWER_S, Load, simulate
from tests.serve_apps.gateway.virtual_time import run


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def tested() -> None:
        run(test())

    tested.__name__ = test.__name__
    return tested


def line(**queue: Any) -> Line:
    return Line("chat", Queue.model_validate({"max_concurrent": 1, **queue}), lambda model, count: None)


def waits(place: Place) -> bool:
    return place.given is not None and not place.given.done()


def refusal(place: Place) -> RateLimited:
    """What a place was refused with."""
    assert place.given is not None
    error = place.given.exception()
    assert isinstance(error, RateLimited)
    return error


async def order_of(queue: Line, *asking: tuple[str, int, float]) -> list[int]:
    """In which order those that ask, one after the other, while the only place is taken, get it for a second each."""
    taken = queue.ask("somebody", 0, 1)
    began: list[int] = []

    async def ask(number: int, tenant: str, priority: int, share: float) -> None:
        place = queue.ask(tenant, priority, share)
        assert place.given is not None
        await place.given
        began.append(number)
        await asyncio.sleep(1)
        queue.leave(place)

    asked = [asyncio.ensure_future(ask(number, *who)) for number, who in enumerate(asking)]
    await asyncio.sleep(1)
    queue.leave(taken)
    await asyncio.gather(*asked)
    return began


# Who goes first


@in_virtual_time
async def test_a_tenants_own_requests_go_in_the_order_they_came() -> None:
    assert await order_of(line(), ("a", 0, 1), ("a", 0, 1), ("a", 0, 1)) == [0, 1, 2]


@in_virtual_time
async def test_the_lower_priority_number_goes_first() -> None:
    assert await order_of(line(), ("a", 5, 1), ("b", 0, 1), ("a", -5, 1)) == [2, 1, 0]


@in_virtual_time
async def test_tenants_take_turns_however_many_one_of_them_sent() -> None:
    assert await order_of(line(), ("a", 0, 1), ("a", 0, 1), ("a", 0, 1), ("b", 0, 1)) == [0, 3, 1, 2]


@in_virtual_time
async def test_a_tenant_with_three_shares_gets_three_turns_for_one() -> None:
    began = await order_of(line(), *[("a", 0, 3.0)] * 9, *[("b", 0, 1.0)] * 9)
    assert sum(number < 9 for number in began[:8]) == 6


@in_virtual_time
async def test_who_takes_longer_gets_fewer_turns() -> None:
    queue = line()
    held_s = {"long": 0.0, "short": 0.0}

    async def keep_asking(tenant: str, seconds: float) -> None:
        while True:
            place = queue.ask(tenant, 0, 1)
            if place.given is not None:
                await place.given
            await asyncio.sleep(seconds)
            held_s[tenant] += seconds
            queue.leave(place)

    # Two of each: there is always one that waits.
    asking = [asyncio.ensure_future(keep_asking(*who)) for who in [("long", 5), ("short", 1)] * 2]
    await asyncio.sleep(1000)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert held_s["long"] == pytest.approx(held_s["short"], rel=0.1)


# Who is refused


@in_virtual_time
async def test_the_newcomer_is_refused_where_all_that_wait_are_as_important() -> None:
    queue = line(max_waiting=1)
    queue.ask("a", 0, 1)
    first, second = queue.ask("a", 0, 1), queue.ask("a", 0, 1)
    assert waits(first)
    error = refusal(second)
    assert (error.code, error.status) == ("model_overloaded", 429)
    assert error.message == ('The model "chat" is busy, and as many requests wait for it as may; try again later.')


@in_virtual_time
async def test_a_less_important_one_that_waits_makes_room_for_a_more_important_one() -> None:
    queue = line(max_waiting=1)
    queue.ask("a", 0, 1)
    low = queue.ask("a", 9, 1)
    high = queue.ask("b", 0, 1)
    assert refusal(low).code == "model_overloaded"
    assert waits(high)


@in_virtual_time
async def test_the_newest_of_the_tenant_with_the_most_waiting_makes_room() -> None:
    queue = line(max_waiting=3)
    queue.ask("a", 0, 1)
    flood = [queue.ask("flood", 0, 1) for _ in range(3)]
    other = queue.ask("b", 0, 1)
    assert [waits(place) for place in flood] == [True, True, False]
    assert waits(other)


@in_virtual_time
async def test_where_nobody_may_wait_who_finds_no_place_is_refused() -> None:
    queue = line(max_waiting=0)
    first = queue.ask("a", 0, 1)
    assert refusal(queue.ask("b", 0, 1)).code == "model_overloaded"
    queue.leave(first)
    assert queue.ask("b", 0, 1).given is None


@in_virtual_time
async def test_who_waits_too_long_is_refused_and_others_go_on_waiting() -> None:
    queue = line(timeout_s=5)
    queue.ask("a", 0, 1)
    early = queue.ask("a", 0, 1)
    await asyncio.sleep(3)
    late = queue.ask("a", 0, 1)
    await asyncio.sleep(2.5)
    assert refusal(early).code == "queue_timeout"
    assert refusal(early).message == 'The model "chat" had no place for the request within 5 s; try again later.'
    assert waits(late)


@in_virtual_time
async def test_a_refusal_says_when_those_that_wait_are_through() -> None:
    queue = line(max_waiting=20)
    for _ in range(100):  # places are held for 2 s
        place = queue.ask("a", 0, 1)
        await asyncio.sleep(2)
        queue.leave(place)
    places = [queue.ask("a", 0, 1) for _ in range(22)]
    assert refusal(places[-1]).retry_after_s == 42  # the refused one counted: 21 turns of 2 s


@pytest.mark.parametrize(("held_s", "told_s"), [(0.001, 1), (1000, 60)])
def test_a_refusal_says_no_less_than_a_second_and_no_more_than_a_minute(held_s: float, told_s: int) -> None:
    async def refuse() -> int | None:
        queue = line(max_waiting=1)
        for _ in range(100):
            place = queue.ask("a", 0, 1)
            await asyncio.sleep(held_s)
            queue.leave(place)
        return refusal([queue.ask("a", 0, 1) for _ in range(3)][-1]).retry_after_s

    assert run(refuse()) == told_s


# Leaving, and new limits


@in_virtual_time
async def test_who_no_longer_waits_makes_room_at_once() -> None:
    queue = line(max_waiting=1)
    queue.ask("a", 0, 1)
    gone = queue.ask("a", 0, 1)
    queue.leave(gone)
    assert waits(queue.ask("a", 0, 1))


@in_virtual_time
async def test_a_place_passes_over_one_whose_task_was_cancelled_a_moment_ago() -> None:
    queue = line()
    first, gone, next_one = (queue.ask("a", 0, 1) for _ in range(3))
    assert gone.given is not None
    gone.given.cancel()
    queue.leave(first)
    assert not waits(next_one)
    queue.leave(gone)
    queue.leave(next_one)
    assert queue.ask("a", 0, 1).given is None


@in_virtual_time
async def test_more_places_are_given_to_those_that_wait() -> None:
    queue = line()
    places = [queue.ask("a", 0, 1) for _ in range(4)]
    queue.limit_by(Queue(max_concurrent=3))
    assert [waits(place) for place in places] == [False, False, False, True]


@in_virtual_time
async def test_fewer_places_take_none_away() -> None:
    queue = line(max_concurrent=2)
    first, second, third = (queue.ask("a", 0, 1) for _ in range(3))
    queue.limit_by(Queue(max_concurrent=1))
    queue.leave(first)
    assert waits(third)
    queue.leave(second)
    assert not waits(third)


@in_virtual_time
async def test_those_that_may_wait_no_more_are_refused() -> None:
    queue = line()
    places = [queue.ask("a", 0, 1) for _ in range(4)]
    queue.limit_by(Queue(max_concurrent=1, max_waiting=1))
    assert waits(places[1])
    assert [refusal(place).code for place in places[2:]] == ["model_overloaded"] * 2


@in_virtual_time
async def test_a_new_deadline_holds_for_those_that_wait() -> None:
    queue = line(timeout_s=100)
    queue.ask("a", 0, 1)
    waiting = queue.ask("a", 0, 1)
    await asyncio.sleep(2)
    queue.limit_by(Queue(max_concurrent=1, timeout_s=5))
    await asyncio.sleep(2.9)
    assert waits(waiting)
    await asyncio.sleep(0.2)
    assert refusal(waiting).code == "queue_timeout"


@in_virtual_time
async def test_without_limits_everybody_goes() -> None:
    queue = line()
    places = [queue.ask("a", 0, 1) for _ in range(4)]
    queue.limit_by(None)
    assert not any(waits(place) for place in places)


# Who floods leaves places free


async def _flooded(queue: Line) -> list[Place]:
    """Places of a flood in a queue of 8, which by now leaves 3 of them free."""
    flood = [queue.ask("flood", 0, 1) for _ in range(160)]
    for free in range(3):
        others = [queue.ask("other", 0, 1) for _ in range(free + 1)]
        assert [waits(place) for place in others] == [False] * free + [True]
        queue.leave(next(place for place in flood if place.state == "held"))
        assert not waits(others[-1])
        for place in others:
            queue.leave(place)
    return flood


def held(places: list[Place]) -> int:
    return sum(place.state == "held" for place in places)


@in_virtual_time
async def test_who_floods_leaves_places_free_for_others() -> None:
    queue = line(max_concurrent=8)
    await _flooded(queue)
    assert [queue.ask("other", 0, 1).given for _ in range(3)] == [None] * 3
    assert waits(queue.ask("flood", 0, 1))


@in_virtual_time
async def test_who_floods_alone_has_every_place() -> None:
    queue = line(max_concurrent=8)
    places = [queue.ask("flood", 0, 1) for _ in range(160)]
    assert held(places) == 8


@in_virtual_time
async def test_places_are_left_free_only_as_long_as_others_are_active() -> None:
    queue = line(max_concurrent=8, timeout_s=1000)
    places = await _flooded(queue)
    assert held(places) == 5
    await asyncio.sleep(ACTIVE_S * 1.5)
    queue.ask("flood", 0, 1)
    assert held(places) == 8


@in_virtual_time
async def test_nothing_is_left_free_for_the_less_important() -> None:
    queue = line(max_concurrent=8)
    places = [queue.ask("flood", -1, 1) for _ in range(160)]
    assert waits(queue.ask("other", 0, 1))
    queue.leave(places[0])
    assert held(places) == 8


@in_virtual_time
async def test_fewer_places_are_left_free_when_nobody_has_to_wait() -> None:
    queue = line(max_concurrent=8)
    places = await _flooded(queue)
    for _ in range(GIVEN_IN_A_ROW):
        queue.leave(queue.ask("other", 0, 1))
    assert held(places) == 6


# How it comes out, with the real queue in virtual time: answers take 3 s, the first token 0.2 to 0.4 s, and the flooder
# asks for 10 times its share.

SECONDS = 200


@pytest.mark.parametrize(("places", "part"), [(8, 0.3), (16, 0.5), (16, 0.7), (32, 0.5)])
def test_a_flood_hardly_delays_another_tenants_first_tokens(places: int, part: float) -> None:
    """``part``: how much of its own share the other tenant uses."""
    queue = Queue(max_concurrent=places, max_waiting=64, timeout_s=30)
    alone, beside = Load("victim", places / 2 * part), Load("victim", places / 2 * part)
    flood = Load("flood", places / 2 * 10)
    simulate(queue, [alone], seconds=SECONDS, seed=1)
    simulate(queue, [beside, flood], seconds=SECONDS, seed=1)
    assert not beside.refusals
    assert beside.p95_s <= alone.p95_s * 1.2
    assert beside.answers == alone.answers
    # What the flood may have, it gets, at least its own share nearly.
    assert flood.answers * ANSWER_S / SECONDS > places / 2 * 0.8


def test_without_the_places_left_free_a_flood_would_delay_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Line, "_most_left_free", staticmethod(lambda places: 0))
    queue = Queue(max_concurrent=16, max_waiting=64, timeout_s=30)
    alone, beside = Load("victim", 4), Load("victim", 4)
    simulate(queue, [alone], seconds=SECONDS, seed=1)
    simulate(queue, [beside, Load("flood", 80)], seconds=SECONDS, seed=1)
    assert beside.p95_s > alone.p95_s * 1.5


def test_a_flood_delays_none_of_several_tenants() -> None:
    queue = Queue(max_concurrent=32, max_waiting=64, timeout_s=30)
    names = ("a", "b", "c")
    alone, beside = ([Load(name, 4) for name in names] for _ in range(2))
    simulate(queue, alone, seconds=SECONDS, seed=2)
    simulate(queue, [*beside, Load("flood", 80)], seconds=SECONDS, seed=2)
    assert [with_flood.p95_s <= before.p95_s * 1.2 for with_flood, before in zip(beside, alone, strict=True)] == [
        True
    ] * 3


def test_floods_share_by_their_shares() -> None:
    one, three = Load("one", 60), Load("three", 60, share=3)
    simulate(Queue(max_concurrent=16, max_waiting=64, timeout_s=30), [one, three], seconds=SECONDS, seed=3)
    assert three.answers / one.answers == pytest.approx(3, rel=0.1)


# What is asked in the background


async def background(queue: Line, count: int) -> list[Place]:
    """Requests in the background, when all have begun that may."""
    places = [queue.ask("team", BACKGROUND_PRIORITY, 1) for _ in range(count)]
    await asyncio.sleep(0.2 * count)
    return places


def all_leave(queue: Line, places: list[Place]) -> None:
    for place in places:
        queue.leave(place)


@in_virtual_time
async def test_the_background_leaves_the_places_that_others_needed_until_they_have_not_asked_for_a_while() -> None:
    queue = line(max_concurrent=8, timeout_s=1000)
    all_leave(queue, [queue.ask("team", 0, 1) for _ in range(3)])
    lines = await background(queue, 20)
    assert held(lines) == 5
    await asyncio.sleep(SPARE_AFTER_S / 2)
    queue.leave(lines[0])
    await asyncio.sleep(1)
    assert held(lines) == 5
    await asyncio.sleep(SPARE_AFTER_S)
    queue.leave(lines[1])
    await asyncio.sleep(2)
    assert held(lines) == 8


@in_virtual_time
async def test_who_asks_in_the_background_need_not_be_left_a_place() -> None:
    queue = line(max_concurrent=8)
    all_leave(queue, await background(queue, 3))
    assert held(await background(queue, 8)) == 8


@in_virtual_time
async def test_what_others_need_fades_with_their_requests_that_need_less() -> None:
    queue = line(max_concurrent=8)
    all_leave(queue, [queue.ask("team", 0, 1) for _ in range(5)])
    lines = await background(queue, 8)
    assert held(lines) == 3
    for _ in range(25):
        queue.leave(queue.ask("team", 0, 1))
    queue.leave(lines[0])
    await asyncio.sleep(1)
    assert held(lines) == 5


@in_virtual_time
async def test_the_background_begins_one_by_one() -> None:
    queue = line(max_concurrent=8)
    lines = [queue.ask("team", BACKGROUND_PRIORITY, 1) for _ in range(9)]
    begun = []
    for _ in range(8):
        begun.append(held(lines))
        await asyncio.sleep(0.75 / 8)  # a place is taken to be held for a second
    assert begun == [1, 2, 3, 4, 5, 6, 7, 8]


@in_virtual_time
async def test_short_requests_in_the_background_need_no_pause() -> None:
    queue = line(max_concurrent=8)
    for _ in range(100):
        place = queue.ask("team", BACKGROUND_PRIORITY, 1)
        if place.given is not None:
            await place.given
        queue.leave(place)
    assert held([queue.ask("team", BACKGROUND_PRIORITY, 1) for _ in range(8)]) == 8


@in_virtual_time
async def test_the_background_has_one_of_few_places_where_all_are_free() -> None:
    queue = line(max_concurrent=2)
    all_leave(queue, [queue.ask("team", 0, 1) for _ in range(2)])
    assert held(await background(queue, 2)) == 1


def lent(places: list[Place], *, may_end: bool = True) -> list[Place]:
    """Let each be taken back; a list of those that are."""
    taken: list[Place] = []

    def of(place: Place) -> Callable[[], bool]:
        def take_back() -> bool:
            if may_end:
                taken.append(place)
            return may_end

        return take_back

    for place in places:
        place.take_back = of(place)
    return taken


@in_virtual_time
async def test_who_would_wait_takes_the_place_back_that_the_background_got_last() -> None:
    queue = line(max_concurrent=2)
    lines = await background(queue, 2)
    taken = lent(lines)
    chat = queue.ask("team", 0, 1)
    assert taken == [lines[1]]
    queue.leave(lines[1])
    assert not waits(chat)


@in_virtual_time
async def test_a_place_is_taken_back_once_and_for_each_that_waits() -> None:
    queue = line(max_concurrent=3)
    lines = await background(queue, 3)
    taken = lent(lines)
    for _ in range(2):
        queue.ask("team", 0, 1)
    assert taken == [lines[2], lines[1]]


@in_virtual_time
async def test_nothing_is_taken_back_for_who_is_refused() -> None:
    queue = line(max_concurrent=1, max_waiting=0)
    taken = lent(await background(queue, 1))
    assert refusal(queue.ask("team", 0, 1)).code == "model_overloaded"
    assert not taken


@in_virtual_time
async def test_a_place_is_not_taken_back_where_it_is_too_late() -> None:
    queue = line(max_concurrent=2)
    lines = await background(queue, 2)
    early, late = lent(lines[:1]), lent(lines[1:], may_end=False)
    queue.ask("team", 0, 1)
    assert (early, late) == ([lines[0]], [])


@in_virtual_time
async def test_nothing_is_taken_back_while_a_place_is_free_nor_for_the_background() -> None:
    queue = line(max_concurrent=3)
    taken = lent(await background(queue, 2))
    queue.ask("team", 0, 1)
    await background(queue, 1)
    assert not taken


@in_virtual_time
async def test_the_background_takes_nothing_of_a_tenants_share() -> None:
    queue = line(max_concurrent=8)
    await background(queue, 8)
    places = [queue.ask("team", 0, 1) for _ in range(8)]
    assert all(map(waits, places))
    assert not queue._floods(places[0].lane, asyncio.get_running_loop().time())
