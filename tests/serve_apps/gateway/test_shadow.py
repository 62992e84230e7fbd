import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from serve_apps.common.errors import Unavailable
from serve_apps.gateway.relay import Outbound, Relay
from serve_apps.gateway.shadow import Shadows
from tests.serve_apps.gateway.servers import PATIENCE_S, Answer, Behaviour, Upstream

Starts = Callable[[Behaviour], tuple[Upstream, str]]


def copy_for(url: str, body: bytes = b"{}") -> Outbound:
    return Outbound("POST", f"{url}/v1/chat/completions", {"x-llm-tenant": "acme"}, body, repeatable=True)


@dataclass
class Counted:
    """What was counted, and a way to wait for it."""

    statuses: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, version: str, status: str) -> None:
        self.statuses.append((version, status))

    async def until(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.statuses) < number:
                await asyncio.sleep(0.01)


def story(play: Callable[[Shadows, Counted], Awaitable[None]], limit: int = 2) -> Counted:
    """Play with shadows that go through a real relay; what was counted."""
    counted = Counted()

    async def played() -> None:
        relay = Relay(first_byte_timeout_s=PATIENCE_S, stall_timeout_s=PATIENCE_S)
        shadows = Shadows(relay, limit, counted)
        try:
            await play(shadows, counted)
        finally:
            await shadows.close()
            await relay.close()

    asyncio.run(played())
    return counted


def test_a_copy_is_sent_marked_and_its_status_counted(upstream: Starts) -> None:
    async def answers(answer: Answer) -> None:
        await answer.whole(200, b"dropped", {"content-type": "application/json"})

    server, url = upstream(answers)

    async def play(shadows: Shadows, counted: Counted) -> None:
        original = copy_for(url, b'{"model": "chat"}')
        shadows.send("next", lambda: original)
        await counted.until(1)
        assert original.headers == {"x-llm-tenant": "acme"}

    assert story(play).statuses == [("next", "200")]
    (received,) = server.received
    assert received.body == b'{"model": "chat"}'
    assert (received.headers["x-llm-shadow"], received.headers["x-llm-tenant"]) == ("true", "acme")


def test_a_failing_shadow_is_counted_and_harms_nobody(upstream: Starts) -> None:
    async def fails(answer: Answer) -> None:
        await answer.whole(500, b"boom", {"content-type": "text/plain"})

    _, url = upstream(fails)

    async def play(shadows: Shadows, counted: Counted) -> None:
        shadows.send("next", lambda: copy_for(url))
        await counted.until(1)

    assert story(play).statuses == [("next", "500")]


def test_a_shadow_that_is_not_there_is_counted() -> None:
    async def play(shadows: Shadows, counted: Counted) -> None:
        shadows.send("next", lambda: copy_for("http://127.0.0.1:9"))
        await counted.until(1)

    assert story(play).statuses == [("next", "none")]


def test_the_caller_never_waits_and_copies_beyond_the_limit_are_dropped_and_counted(upstream: Starts) -> None:
    async def waits(answer: Answer) -> None:
        await answer.released()
        await answer.whole(200, b"", {})

    server, url = upstream(waits)

    async def play(shadows: Shadows, counted: Counted) -> None:
        for _ in range(5):
            shadows.send("next", lambda: copy_for(url))  # not a coroutine: there is nothing to wait for
        assert counted.statuses == [("next", "dropped")] * 3
        server.release.set()
        await counted.until(5)
        # There is room again.
        shadows.send("next", lambda: copy_for(url))
        await counted.until(6)

    assert story(play).statuses == [("next", "dropped")] * 3 + [("next", "200")] * 3
    assert len(server.received) == 3


def test_an_answer_is_read_to_its_end(upstream: Starts) -> None:
    """Else the version would do less work for a copy than for the original."""
    read = threading.Event()

    async def streams(answer: Answer) -> None:
        await answer.begin(200, {"content-type": "text/event-stream"})
        for _ in range(100):
            await answer.chunk(b"data: {}\n\n" * 1000)
        await answer.chunk(b"data: [DONE]\n\n", more=False)
        read.set()

    _, url = upstream(streams)

    async def play(shadows: Shadows, counted: Counted) -> None:
        shadows.send("next", lambda: copy_for(url))
        await counted.until(1)

    assert story(play).statuses == [("next", "200")]
    assert read.wait(PATIENCE_S)


def test_what_is_under_way_is_given_up_at_the_end(upstream: Starts) -> None:
    async def waits(answer: Answer) -> None:
        await answer.begin(200, {"content-type": "text/event-stream"})
        await answer.chunk(b"data: {}\n\n")
        await answer.client_gone()

    server, url = upstream(waits)

    async def play(shadows: Shadows, _: Counted) -> None:
        shadows.send("next", lambda: copy_for(url))
        await asyncio.to_thread(server.asked.wait, PATIENCE_S)

    assert story(play).statuses == []
    assert server.aborted.wait(PATIENCE_S)


def test_a_copy_that_cannot_be_made_is_counted_and_harms_nobody() -> None:
    counted: list[tuple[str, str]] = []

    def no_key() -> Outbound:
        raise Unavailable("there is no key for it")

    async def story() -> None:
        shadows = Shadows(Relay(first_byte_timeout_s=1, stall_timeout_s=1), 1, lambda *what: counted.append(what))
        shadows.send("next", no_key)
        await shadows.close()

    asyncio.run(story())
    assert counted == [("next", "none")]
