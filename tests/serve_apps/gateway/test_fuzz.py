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
#: What may be left of 5 000 requests, in bytes: less than one small object of each. A body is 300 on average. Caches
#: and what earlier tests left running take up to half of it.
LEFT_BYTES = 128 * 1024

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
def test_no_body_is_too_much_for_the_gateway(gateway: StartGateway, sent_upstream: Counter[str]) -> None:
    running = gateway(models_at("http://host"))
    statuses: Counter[int] = Counter()

    async def feed(seed: int, count: int) -> None:
        for path, body in bodies(seed, count):
            status, answer = await ask(running, path, body)
            statuses[status] += 1
            if status != 200:
                check_refusal(path, status, answer)

    async def everything() -> int:
        rest = COUNT - THROUGH_A_SOCKET
        await feed(SEED, rest // 2)
        running.metrics._calls.clear()
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        await feed(SEED + 1, rest - rest // 2)
        running.metrics._calls.clear()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return after - before

    left = asyncio.run(everything())
    assert left < LEFT_BYTES
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
