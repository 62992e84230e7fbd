import asyncio

import pytest

from serve_apps.gateway.advances import EARLY_S, LEAST, LIFE_S, SHARE, Advance, Wanted
from serve_apps.gateway.gcra import Bounds, Bucket, Outcome

NOW = 1_000.0
WIDE = Bounds(Bucket.per_minute(6_000), Bucket.per_minute(600_000), running=100)
ESTIMATE = 50


def seen(bounds: Bounds = WIDE, requests: int = 20, tokens: float = ESTIMATE) -> Advance:
    """One that has seen so many requests come, and has nothing for them."""
    advance = Advance(bounds)
    for _ in range(requests):
        advance.see(tokens, NOW)
        assert advance.take(tokens, "mine", NOW) is None
    return advance


def begun(bounds: Bounds = WIDE, places: int = 2) -> Advance:
    """One with 20 requests, their tokens and some places; the buckets hold 30 requests and 1,500 tokens with it."""
    advance = seen(bounds)
    wanted = advance.wanted()
    assert wanted == Wanted(20, 20 * ESTIMATE, 0)
    assert not advance.begin(wanted, [], Outcome("", 30, 1_500, advanced=True), NOW)
    for number in range(places):
        assert advance.settle(0, f"place-{number}", NOW)
    return advance


def under_way() -> "asyncio.Future[None]":
    """A question to Redis that has no answer yet."""
    loop = asyncio.new_event_loop()
    loop.close()
    return loop.create_future()


def test_what_was_asked_for_of_late_is_wanted_for_the_next_moment() -> None:
    advance = seen(requests=12)
    assert advance.wanted() == Wanted(12, 12 * ESTIMATE, 0)
    advance.see(ESTIMATE, NOW + LIFE_S)
    assert advance.wanted() == Wanted(12, 12 * ESTIMATE, 0), "the moment before counts, too"
    advance.see(ESTIMATE, NOW + 4 * LIFE_S)
    assert advance.wanted() is None, "that was long ago"


def test_who_waits_for_it_gets_a_place() -> None:
    advance = seen(requests=12)
    advance.waiting = 3
    wanted = advance.wanted()
    assert wanted == Wanted(12, 12 * ESTIMATE, 3)
    advance.begin(wanted, ["a", "b", "c"], Outcome("", 12, 600, advanced=True), NOW)
    assert [taken and taken[1] for taken in (advance.take(1, "mine", NOW) for _ in range(4))] == ["c", "b", "a", None]


@pytest.mark.parametrize(("bounds", "places"), [(WIDE, int(100 * SHARE)), (Bounds(WIDE.requests, WIDE.tokens), 0)])
def test_as_many_places_as_are_missing_are_wanted_and_no_more_than_a_share(bounds: Bounds, places: int) -> None:
    advance = seen(bounds)
    advance.waiting = 19
    wanted = advance.wanted()
    assert wanted is not None
    assert wanted.places == places
    begun_with = begun(places=2)
    begun_with.waiting = 4
    again = begun_with.wanted()
    assert again is not None
    assert again.places == 2


def test_once_there_was_none_it_does_not_pay_to_ask_for_a_while() -> None:
    advance = seen()
    assert advance.may_pay(NOW)
    advance.deny(NOW)
    assert not advance.may_pay(NOW + LIFE_S - 0.01)
    assert advance.may_pay(NOW + LIFE_S)


@pytest.mark.parametrize(
    ("bounds", "may"),
    [
        (WIDE, True),
        (Bounds(requests=Bucket.per_minute(int(LEAST / SHARE))), True),
        (Bounds(requests=Bucket.per_minute(int(LEAST / SHARE) - 1)), False),
        (Bounds(running=20), True),
        (Bounds(running=19), False),
    ],
)
def test_where_a_share_is_less_than_a_few_requests_it_never_pays(bounds: Bounds, may: bool) -> None:
    assert Advance(bounds).may_pay(NOW) == may


@pytest.mark.parametrize(("requests", "pays"), [(LEAST - 1, False), (LEAST, True)])
def test_few_requests_are_not_worth_it(requests: int, pays: bool) -> None:
    assert (seen(requests=requests).wanted() is not None) == pays


@pytest.mark.parametrize(
    ("bounds", "wanted"),
    [
        (Bounds(requests=Bucket.per_minute(200)), Wanted(200 * SHARE, 200 * SHARE * ESTIMATE, 0)),
        (Bounds(requests=Bucket.per_minute(100)), None),
        (Bounds(tokens=Bucket.per_minute(10_000)), Wanted(10, 10_000 * SHARE, 0)),
        (Bounds(tokens=Bucket.per_minute(5_000)), None),
        (Bounds(running=20), Wanted(500, 500 * ESTIMATE, 0)),
        (Bounds(budget=1), Wanted(500, 500 * ESTIMATE, 0)),
    ],
)
def test_no_more_than_a_share_of_any_limit_is_wanted(bounds: Bounds, wanted: Wanted | None) -> None:
    assert seen(bounds, requests=500).wanted() == wanted


def test_requests_are_let_in_while_there_is_enough_for_them() -> None:
    advance = begun()
    for number in range(2):
        taken = advance.take(ESTIMATE, "mine", NOW)
        assert taken is not None
        assert taken[1] == f"place-{1 - number}"
    assert advance.take(ESTIMATE, "mine", NOW) is None, "no place"
    assert advance.settle(0, "place-0", NOW)
    assert advance.take(19 * ESTIMATE, "mine", NOW) is None, "too few tokens"
    assert advance.take(18 * ESTIMATE, "mine", NOW) is not None


def test_only_what_is_limited_runs_out() -> None:
    requests = begun(Bounds(requests=WIDE.requests), places=0)
    assert [requests.take(10**9, "mine", NOW) is not None for _ in range(21)] == [*[True] * 20, False]
    tokens = begun(Bounds(tokens=WIDE.tokens), places=0)
    assert [tokens.take(0, "mine", NOW) is not None for _ in range(30)] == [True] * 30
    assert tokens.take(20 * ESTIMATE + 1, "mine", NOW) is None


def test_a_request_without_a_place_keeps_its_own_lease() -> None:
    taken = begun(Bounds(requests=WIDE.requests), places=0).take(ESTIMATE, "mine", NOW)
    assert taken is not None
    assert taken[1] == "mine"


def test_the_buckets_hold_what_is_used_and_not_what_is_left() -> None:
    advance = begun()
    first = advance.take(ESTIMATE, "mine", NOW)
    assert first is not None
    assert first[0] == Outcome("", 11, 550)
    later = advance.take(ESTIMATE, "mine", NOW + 0.05)  # 5 requests and 500 tokens are earned again
    assert later is not None
    assert later[0] == pytest.approx(Outcome("", 7, 100))


def test_what_a_request_did_not_use_goes_back_to_the_advance() -> None:
    advance = begun()
    assert advance.take(20 * ESTIMATE, "mine", NOW) is not None
    assert advance.take(1, "mine", NOW) is None
    assert advance.settle(-ESTIMATE, "place-1", NOW)
    assert advance.take(ESTIMATE, "mine", NOW) is not None


def test_what_is_over_lets_nobody_in_and_takes_nothing_back() -> None:
    advance = begun()
    assert not advance.is_over(NOW + LIFE_S - 0.01)
    assert advance.is_over(NOW + LIFE_S)
    assert advance.take(ESTIMATE, "mine", NOW + LIFE_S) is None
    assert not advance.settle(0, "mine", NOW + LIFE_S)


def test_shortly_before_its_end_it_is_to_be_renewed_once() -> None:
    advance, last_s = begun(), NOW + LIFE_S - EARLY_S
    assert not advance.is_ending(last_s - 0.01)
    assert advance.is_ending(last_s)
    assert not advance.is_ending(NOW + LIFE_S), "whoever comes now asks"
    advance.asking = under_way()
    assert not advance.is_ending(last_s)


@pytest.mark.parametrize(("owed", "tokens"), [(30, 20 * ESTIMATE + 30), (-30, 20 * ESTIMATE)])
def test_what_is_used_beyond_estimates_is_wanted_too(owed: float, tokens: float) -> None:
    advance = seen()
    assert not advance.settle(owed, "mine", NOW)
    assert advance.wanted() == Wanted(20, tokens, 0)


def test_more_than_its_share_goes_back_to_redis() -> None:
    advance = begun(places=int(100 * SHARE))
    assert not advance.settle(0, "one more", NOW)
    advance = begun(Bounds(tokens=WIDE.tokens), places=0)
    assert not advance.settle(-600_000, "mine", NOW)


def test_at_the_end_all_that_is_left_is_owed_back() -> None:
    advance = begun()
    assert advance.take(ESTIMATE, "mine", NOW) is not None
    assert advance.end() == ((-19, -19 * ESTIMATE), ["place-0"])
    assert advance.end() == ((0, 0), [])
    assert advance.is_idle(NOW + 3 * LIFE_S)
    advance.asking = under_way()
    assert not advance.is_idle(NOW + 3 * LIFE_S), "something is on its way"
    assert not begun().is_idle(NOW + 3 * LIFE_S), "something is left"


def test_a_debt_is_owed() -> None:
    advance = begun()
    assert advance.take(20 * ESTIMATE, "mine", NOW) is not None
    assert advance.settle(700, "place-1", NOW)
    owed, _ = advance.end()
    assert owed.tokens == 700


def test_what_is_left_goes_into_the_next_one_and_idle_places_go_back() -> None:
    advance = begun(places=3)
    assert not advance.begin(Wanted(0, 0, 0), [], Outcome("", 30, 1_500, advanced=True), NOW)
    for _ in range(2):
        advance.see(ESTIMATE, NOW)
        assert advance.take(ESTIMATE, "mine", NOW) is not None
    for number in (1, 2):
        assert advance.settle(0, f"place-{number}", NOW)
    wanted = advance.wanted()
    assert wanted == Wanted(4, 4 * ESTIMATE, 0), "22 were seen, and there are 18"
    assert advance.begin(wanted, [], Outcome("", 30, 1_500, advanced=True), NOW) == ["place-0"]
    assert advance.places == ["place-1", "place-2"]
