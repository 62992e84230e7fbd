import asyncio
import gc
import logging
import weakref

import pytest
import uvloop

from serve_apps.common.rounds import round_of


async def seen_after_a_round(sent: list[str]) -> list[str]:
    before = list(sent)
    await asyncio.sleep(0)
    return before


def test_what_waits_is_sent_in_its_order_when_all_that_is_ready_has_run() -> None:
    async def play() -> tuple[list[str], list[str]]:
        rounds, sent = round_of(asyncio.get_running_loop()), list[str]()
        rounds.at_end(lambda: sent.append("first"))
        rounds.at_end(lambda: sent.append("second"))
        return await seen_after_a_round(sent), sent

    assert uvloop.run(play()) == ([], ["first", "second"])


def test_what_is_written_while_the_rest_is_sent_waits_for_the_next_end() -> None:
    async def play() -> tuple[list[str], list[str]]:
        rounds, sent = round_of(asyncio.get_running_loop()), list[str]()
        rounds.at_end(lambda: rounds.at_end(lambda: sent.append("later")))
        await asyncio.sleep(0)
        return await seen_after_a_round(sent), sent

    assert uvloop.run(play()) == ([], ["later"])


def test_one_that_cannot_be_sent_keeps_back_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("gone")

    async def play() -> list[str]:
        rounds, sent = round_of(asyncio.get_running_loop()), list[str]()
        rounds.at_end(fail)
        rounds.at_end(lambda: sent.append("other"))
        await asyncio.sleep(0)
        return sent

    with caplog.at_level(logging.ERROR):
        assert uvloop.run(play()) == ["other"]
    assert "could not be sent" in caplog.text


@pytest.mark.parametrize(("streams", "expected"), [(0, [False, False, False]), (1, [True, False, True])])
def test_the_first_of_a_round_goes_at_once_while_streams_flow(streams: int, expected: list[bool]) -> None:
    async def play() -> list[bool]:
        rounds = round_of(asyncio.get_running_loop())
        rounds.streams = streams
        one_round = [rounds.goes_at_once(), rounds.goes_at_once()]
        await asyncio.sleep(0)
        return [*one_round, rounds.goes_at_once()]

    assert uvloop.run(play()) == expected


def test_all_who_write_on_a_loop_share_its_rounds_and_no_other_loop_does() -> None:
    async def play() -> tuple[object, bool]:
        loop = asyncio.get_running_loop()
        return round_of(loop), round_of(loop) is round_of(loop)

    one, is_shared = uvloop.run(play())
    other, _ = uvloop.run(play())
    assert is_shared
    assert one is not other


def test_rounds_end_with_their_loop() -> None:
    async def play() -> weakref.ref[object]:
        return weakref.ref(round_of(asyncio.get_running_loop()))

    found = uvloop.run(play())
    gc.collect()
    assert found() is None
