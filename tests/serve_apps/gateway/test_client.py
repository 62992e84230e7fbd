import asyncio
from collections.abc import Iterable

import pytest

from serve_apps.common.errors import (
    HeadersTooLarge,
    InvalidRequest,
    RateLimited,
    RequestTimeout,
    TooLarge,
    UnsupportedMediaType,
)
from serve_apps.common.middleware import Message, Receive
from serve_apps.gateway.admission import Memory
from serve_apps.gateway.client import GRACE_S, MIN_BYTES_PER_S, Intake, check, has_come, read_body
from serve_apps.gateway.headers import RawHeaders
from serve_apps.gateway.request import Disconnected
from tests.serve_apps.gateway.virtual_time import run

LEFT: Message = {"type": "http.disconnect"}


def part(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def receiving(messages: Iterable[Message], every_s: float = 0) -> Receive:
    """Gives one of ``messages`` every so many seconds, and then none for a long time."""
    left = iter(messages)

    async def receive() -> Message:
        if every_s:
            await asyncio.sleep(every_s)
        message = next(left, None)
        if message is None:
            await asyncio.sleep(10**6)
            return LEFT
        return message

    return receive


def body_of(
    messages: Iterable[Message],
    headers: RawHeaders | None = None,
    *,
    every_s: float = 0,
    max_bytes: int = 4,
    timeout_s: float = 30,
    memory: Memory | None = None,
    here: bool = False,
) -> bytes:
    async def read() -> bytes:
        with (memory or Memory(10**9)).hold() as held:
            return await read_body(
                receiving(messages, every_s),
                headers or [],
                max_bytes=max_bytes,
                timeout_s=timeout_s,
                held=held,
                here=here,
            )

    return run(read())


# Headers


def test_headers_over_the_limit_are_refused() -> None:
    headers: RawHeaders = [(b"x-a", b"1" * 7), (b"x-b", b"2" * 7)]
    check(headers, 20)
    with pytest.raises(HeadersTooLarge, match="larger than the 19 bytes"):
        check(headers, 19)


@pytest.mark.parametrize("name", ["authorization", "content-length", "content-type", "host", "x-llm-tenant"])
def test_a_header_that_decides_something_must_be_single(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f'"{name}" was sent twice') as caught:
        check([(name.encode(), b"1"), (b"accept", b"a"), (name.encode(), b"1")], 1000)
    assert caught.value.code == "duplicate_header"


def test_any_other_header_may_come_twice() -> None:
    check([(b"accept", b"a"), (b"accept", b"b")], 1000)


# Bodies: how much


def test_a_body_in_parts_is_put_together() -> None:
    assert body_of([part(b"ab", more=True), part(b"", more=True), part(b"cd")]) == b"abcd"


def test_no_timer_is_set_for_a_body_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(asyncio, "timeout_at")
    assert body_of([part(b"a", more=True), part(b"b")], here=True) == b"ab"


def test_a_body_over_the_limit_is_refused_though_it_is_here() -> None:
    with pytest.raises(TooLarge):
        body_of([part(b"abc", more=True), part(b"de")], here=True)


def test_a_body_over_the_limit_is_refused_as_soon_as_it_is() -> None:
    with pytest.raises(TooLarge, match="larger than the 4 bytes"):
        body_of([part(b"abc", more=True), part(b"de", more=True)])


@pytest.mark.parametrize("declared", [b"5", b"9" * 5000])
def test_a_body_that_says_it_is_over_the_limit_is_refused_unread(declared: bytes) -> None:
    with pytest.raises(TooLarge):
        body_of([], [(b"content-length", declared)])


def test_a_body_that_says_it_is_as_large_as_the_limit_is_read() -> None:
    assert body_of([part(b"abcd")], [(b"content-length", b"4")]) == b"abcd"


def test_bodies_are_refused_when_the_replica_holds_as_many_as_it_may() -> None:
    memory = Memory(3)
    with pytest.raises(RateLimited, match="as many bytes"):
        body_of([part(b"ab", more=True), part(b"cd")], memory=memory)
    assert memory.held_bytes == 0
    assert body_of([part(b"abc")], memory=memory) == b"abc"


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"gzip, identity"])
def test_a_compressed_body_is_refused(coding: bytes) -> None:
    with pytest.raises(UnsupportedMediaType, match="uncompressed"):
        body_of([part(b"{}")], [(b"content-encoding", coding)])


def test_a_body_that_says_it_is_not_compressed_is_read() -> None:
    assert body_of([part(b"{}")], [(b"content-encoding", b"Identity")]) == b"{}"


# Bodies: how fast


def test_a_client_that_leaves_while_sending_is_noticed() -> None:
    with pytest.raises(Disconnected):
        body_of([part(b"ab", more=True), LEFT])


def test_a_body_that_never_comes_is_given_up() -> None:
    with pytest.raises(RequestTimeout, match="0 bytes of the request body were here after 10 s"):
        body_of([])


def test_a_body_that_is_not_here_in_its_time_is_given_up_however_fast() -> None:
    with pytest.raises(RequestTimeout, match="after 12 s"):
        body_of([part(b"x" * MIN_BYTES_PER_S, more=True)] * 1000, every_s=0.5, max_bytes=10**9, timeout_s=12)


def test_a_body_that_trickles_is_given_up_soon() -> None:
    with pytest.raises(RequestTimeout, match="after 10 s"):
        body_of([part(b"x", more=True)] * 1000, every_s=1, max_bytes=10**9, timeout_s=3600)


def test_a_body_that_is_slow_but_not_too_slow_is_read() -> None:
    slow = [part(b"x" * MIN_BYTES_PER_S, more=True)] * 100 + [part(b"x")]
    assert len(body_of(slow, every_s=1, max_bytes=10**9, timeout_s=3600)) == 100 * MIN_BYTES_PER_S + 1


def test_a_client_may_pause_for_less_than_the_grace() -> None:
    assert body_of([part(b"ab", more=True), part(b"cd")], every_s=GRACE_S / 2 - 0.1) == b"abcd"


# Whether a refused request is here to its end


@pytest.mark.parametrize(
    ("messages", "come"),
    [
        ([part(b"x")], True),
        ([part(b"x", more=True), part(b"")], True),
        ([LEFT], True),
        ([part(b"x", more=True)], False),
        ([], False),
        ([part(b"x", more=True)] * 100, False),
    ],
)
def test_what_is_here_is_thrown_away_without_waiting(messages: list[Message], come: bool) -> None:
    async def ask() -> tuple[bool, float]:
        return await has_come(receiving(messages)), asyncio.get_running_loop().time()

    assert run(ask()) == (come, 0)


def test_a_request_that_was_read_is_here_to_its_end() -> None:
    async def ask() -> list[bool]:
        receive = Intake(receiving([part(b"x", more=True), part(b"y")]))
        come = []
        for _ in range(2):
            await receive()
            come.append(receive.complete)
        return [*come, await has_come(receive)]

    assert run(ask()) == [False, True, True]
