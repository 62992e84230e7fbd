"""10 000 bodies that clients should not send. Each is answered 4xx in the caller's dialect, or goes upstream whole."""

import asyncio
import gc
import json
import logging
import re
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from serve_apps.common.middleware import Message, Receive, Send
from serve_apps.gateway import telemetry
from serve_apps.gateway.exchange import Exchange
from serve_apps.gateway.relay import Outbound, Relay
from tests.serve_apps.gateway.conftest import GatewayServer
from tests.serve_apps.gateway.mutations import bodies
from tests.serve_apps.gateway.servers import Answer, Behaviour, Upstream

StartUpstream = Callable[[Behaviour], tuple[Upstream, str]]
StartGateway = Callable[..., GatewayServer]

SEED = 5
COUNT = 10_000
#: Of those, how many go through a socket.
THROUGH_A_SOCKET = 300
#: In so many rounds is what they leave measured. What each request leaves, every round shows; what a cache takes once,
#: or a thread of an earlier test, some do not.
ROUNDS = 3
#: What may be left of a request, in bytes: half of the smallest object. A body is 300 on average.
LEFT_BYTES = 16

#: What only our own process would say.
INTERNALS = re.compile(rb'Traceback|File "|\.py\b| object at 0x|serve_apps|site-packages|orjson|pydantic|\w+Error\b')


def models_at(url: str) -> dict[str, Any]:
    tasks = {"chat": "generate", "embed": "embed", "rank": "score"}
    return {name: {"url": f"{url}/internal/{name}", "task": task} for name, task in tasks.items()}


def check_refusal(path: str, status: int, body: bytes) -> None:
    """A refusal is ours, in the caller's dialect, and gives nothing away."""
    assert 400 <= status < 500, (status, body)
    document = json.loads(body)
    error = document["error"]
    assert isinstance(error["message"], str)
    if path == "/v1/messages" and document.get("type") == "error":
        assert set(error) == {"type", "message"}
    else:
        assert set(error) == {"message", "type", "param", "code"}
    assert not INTERNALS.search(body), body
    assert len(body) < 2000


@pytest.fixture
def _unlogged() -> Iterator[None]:
    """pytest keeps every log record, which would look as if we kept the requests."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def sent_upstream(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """In place of the network: every request that would go upstream, checked and counted by its path."""
    sent: Counter[str] = Counter()

    async def relay(
        self: Relay, outbound: Outbound, receive: Receive, send: Send, exchange: Exchange, *_: object, **__: object
    ) -> None:
        assert isinstance(orjson.loads(outbound.body), dict)
        assert outbound.url.startswith("http://host/internal/")
        sent[exchange.path] += 1
        exchange.began(200)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    monkeypatch.setattr(Relay, "relay", relay)
    return sent


async def ask(running: GatewayServer, path: str, body: bytes) -> tuple[int, bytes]:
    """The gateway's answer to ``body``, which comes in two parts."""
    coming: list[Message] = [
        {"type": "http.request", "body": body[:50], "more_body": True},
        {"type": "http.request", "body": body[50:], "more_body": False},
    ]
    status, answer = 0, b""

    async def receive() -> Message:
        return coming.pop(0) if coming else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status, answer
        status = message.get("status", status)
        answer += message.get("body", b"")

    headers = [(b"authorization", f"Bearer {running.key}".encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    await running.ingress(scope, receive, send)
    await asyncio.sleep(0)  # the loop forgets the timers that are over
    return status, answer


@pytest.mark.usefixtures("_unlogged")
def test_no_body_is_too_much_for_the_gateway(
    gateway: StartGateway, sent_upstream: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "TOLD_EVERY_S", 3600)
    running = gateway(models_at("http://host"))
    statuses: Counter[int] = Counter()

    async def feed(seed: int, count: int) -> None:
        for path, body in bodies(seed, count):
            status, answer = await ask(running, path, body)
            statuses[status] += 1
            if status != 200:
                check_refusal(path, status, answer)

    def traced() -> int:
        """Bytes that are in use, but for what was counted: that is told here, where nobody else does it meanwhile."""
        running.ingress._telemetry.tell()
        running.metrics._calls.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async def everything() -> list[float]:
        count = (COUNT - THROUGH_A_SOCKET) // (1 + ROUNDS)
        await feed(SEED, count)
        left = []
        tracemalloc.start()
        for number in range(1, 1 + ROUNDS):
            before = traced()
            await feed(SEED + number, count)
            left.append((traced() - before) / count)
        tracemalloc.stop()
        return left

    assert min(asyncio.run(everything())) < LEFT_BYTES
    assert sum(statuses.values()) == COUNT - THROUGH_A_SOCKET
    # They were neither all refused nor all let through.
    assert set(statuses) >= {200, 400, 404}
    assert min(statuses[200], statuses[400]) > COUNT / 10
    assert len(sent_upstream) >= 4


async def ok(answer: Answer) -> None:
    await answer.whole(200, b"{}", {"content-type": "application/json"})


def test_what_reaches_the_upstream_over_the_wire_is_a_json_object(
    upstream: StartUpstream, gateway: StartGateway
) -> None:
    server, url = upstream(ok)
    running = gateway(models_at(url))
    for path, body in bodies(SEED + 2, THROUGH_A_SOCKET):
        response = running.client.post(path, content=body, headers={"content-type": "application/json"})
        if response.status_code != 200:
            check_refusal(path, response.status_code, response.content)
    assert len(server.received) > THROUGH_A_SOCKET / 10
    assert all(isinstance(orjson.loads(received.body), dict) for received in server.received)
    assert all(received.path.startswith("/internal/") for received in server.received)
