import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from serve_apps.batch.answering import MAX_ATTEMPTS, Answer, Answering
from serve_apps.batch.lines import Line
from serve_apps.batch.pace import Paces
from serve_apps.common.errors import Unavailable
from serve_apps.common.gateway_client import Reply
from tests.serve_apps.gateway.virtual_time import run

OK = Reply(200, b'{"object": "chat.completion"}')


class Sender:
    """Answers as it is told, one reply a time."""

    def __init__(self, reply: Callable[[int], Reply]) -> None:
        self.reply = reply
        self.ids: list[str] = []

    async def send(self, path: str, body: bytes, request_id: str) -> Reply:
        self.ids.append(request_id)
        return self.reply(len(self.ids))


async def lines(count: int) -> AsyncIterator[Line]:
    for number in range(count):
        yield Line(f"line-{number}", "/v1/chat/completions", "chat", b"{}")


def answers(sender: Sender, count: int = 1) -> list[Answer]:
    delivered: list[Answer] = []

    async def deliver(answer: Answer) -> None:
        delivered.append(answer)

    async def story() -> None:
        async with asyncio.timeout(3600):
            await Answering("batch_1", sender, Paces(lambda: 4), lambda: 4).answer(lines(count), deliver)

    run(story())
    return delivered


def test_every_line_is_answered_once() -> None:
    sender = Sender(lambda _: OK)
    delivered = answers(sender, 100)
    assert sorted(answer.custom_id for answer in delivered) == sorted(f"line-{number}" for number in range(100))
    assert len(set(sender.ids)) == 100


@pytest.mark.parametrize("busy", [Reply(429, b"{}", 7), Reply(503, b"{}")])
def test_a_busy_model_is_asked_again_until_it_has_room_with_the_same_id(busy: Reply) -> None:
    sender = Sender(lambda number: busy if number <= 20 else OK)
    (answer,) = answers(sender)
    assert (answer.outcome, len(sender.ids), len(set(sender.ids))) == ("output", 21, 1)


@pytest.mark.parametrize(("code", "others_wait"), [("rate_limit_exceeded", False), ("model_overloaded", True)])
def test_only_a_busy_model_keeps_other_batches_away(code: str, others_wait: bool) -> None:
    limited = Reply(429, b'{"error": {"code": "%b"}}' % code.encode(), 600)
    first = Sender(lambda number: limited if number == 1 else OK)
    ended_s: dict[str, float] = {}

    async def deliver(answer: Answer) -> None:
        ended_s[answer.custom_id] = asyncio.get_running_loop().time()

    async def story() -> None:
        paces = Paces(lambda: 4)
        held = paces.at("chat")
        refused = asyncio.create_task(Answering("b1", first, paces, lambda: 4).answer(lines(1), deliver))
        while not first.ids:
            await asyncio.sleep(0.01)
        await Answering("b2", Sender(lambda _: OK), paces, lambda: 4).answer(lines(2), deliver)
        assert (ended_s["line-1"] >= 600) is others_wait
        await refused
        assert ended_s["line-0"] >= 600
        assert held.limit == (3 if others_wait else 4)  # halved, and raised by two answers

    run(story())


def test_a_quota_that_is_used_up_is_an_answer() -> None:
    sender = Sender(lambda _: Reply(429, b'{"error": {"code": "insufficient_quota"}}', 7, final=True))
    (answer,) = answers(sender)
    assert (answer.outcome, len(sender.ids)) == ("errors", 1)


def test_a_failure_is_tried_a_few_times() -> None:
    sender = Sender(lambda number: Reply(502, b"{}") if number == 1 else OK)
    (answer,) = answers(sender)
    assert (answer.outcome, len(sender.ids)) == ("output", 2)
    broken = Sender(lambda _: Reply(500, b"no JSON"))
    (answer,) = answers(broken)
    assert (answer.outcome, len(broken.ids)) == ("errors", MAX_ATTEMPTS)
    assert json.loads(answer.record)["response"]["body"]["error"]["message"] == "The answer is not JSON."


def test_a_gateway_that_cannot_be_reached_is_busy() -> None:
    def reply(number: int) -> Reply:
        if number < 10:
            raise Unavailable("gone", retry_after_s=1)
        return OK

    (answer,) = answers(Sender(reply))
    assert answer.outcome == "output"


def test_what_the_delivery_finds_wrong_ends_the_work() -> None:
    async def deliver(_: Answer) -> None:
        raise OSError("the disk is full")

    async def story() -> None:
        with pytest.raises(OSError, match="full"):
            await Answering("b", Sender(lambda _: OK), Paces(lambda: 4), lambda: 4).answer(lines(9), deliver)

    run(story())
