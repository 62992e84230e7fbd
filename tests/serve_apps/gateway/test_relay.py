import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from uvicorn.protocols.http import auto

from serve_apps.common.errors import ServingError
from serve_apps.common.middleware import Receive, Scope, Send, send_error
from serve_apps.gateway import compat, relay
from serve_apps.gateway.exchange import Exchange
from serve_apps.gateway.relay import Outbound, Relay
from serve_apps.gateway.request import Disconnected
from serve_apps.gateway.usage import Reader, Tokens
from tests.serve_apps.gateway.servers import PATIENCE_S, Answer, Behaviour, Upstream, serving

StartUpstream = Callable[[Behaviour], tuple[Upstream, str]]

SSE = {"content-type": "text/event-stream; charset=utf-8"}
JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}
FIRST, SECOND, LAST = b'data: {"n":1}\n\n', b'data: {"n": "\xc3\xa9"}\r\n\r\n', b"data: [DONE]\n\n"
TRACEBACK = b'Traceback (most recent call last):\n  File "/app/secret.py", line 7, in step\nKeyError: 1'
OVERFLOW = json.dumps(
    {
        "error": {
            "message": "This model's maximum context length is 8 tokens. However, you requested 9 tokens.",
            "code": 400,
        }
    }
).encode()


@dataclass
class Relaying:
    """A server that relays everything to ``url``, each request as the test has set it by then."""

    url: str
    relay: Relay
    options: dict[str, Any] = field(default_factory=dict)
    """Of ``Outbound``, over the default: repeatable."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Of ``Relay.relay``."""
    exchanges: list[Exchange] = field(default_factory=list)
    at: str = ""
    shown: bool = False
    pieces: int = 0
    """That were counted by the time the relay was done with the last request."""
    finished: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.relay.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        client = compat.connection(scope)
        self.shown = client is not None
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        exchange = Exchange("id", scope["method"], scope["path"], model="chat", stream=True)
        self.exchanges.append(exchange)
        outbound = Outbound(scope["method"], self.url + scope["path"], {}, body, **{"repeatable": True} | self.options)
        echo = [(b"x-llm-version", b"v1")]
        self.finished.clear()
        try:
            await self.relay.relay(outbound, receive, send, exchange, echo, client=client, **self.arguments)
        except ServingError as error:
            await send_error(send, error)
        except Disconnected:
            exchange.client_gone()
        finally:
            self.pieces = exchange.pieces
            self.finished.set()

    def ask(self, **body: Any) -> httpx.Response:
        """One request, its answer read to the end, and the exchange filled in."""
        response = httpx.post(f"{self.at}/v1/chat/completions", json=body, timeout=PATIENCE_S, trust_env=False)
        assert self.finished.wait(PATIENCE_S)
        return response

    def stream(self) -> AbstractContextManager[httpx.Response]:
        """One request, its answer to be read as it comes."""
        url = f"{self.at}/v1/chat/completions"
        return httpx.stream("POST", url, json={}, timeout=PATIENCE_S, trust_env=False)

    def connect(self) -> socket.socket:
        """A request in which everything can happen between two bytes."""
        connection = socket.create_connection(("127.0.0.1", int(self.at.rpartition(":")[2])), PATIENCE_S)
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        return connection


StartRelay = Callable[..., Relaying]


@pytest.fixture(params=["shown", "hidden"])
def relaying(request: pytest.FixtureRequest) -> Iterator[StartRelay]:
    """Starts relays to a URL, in servers that show their connections and in servers that do not."""
    with ExitStack() as stack:

        def start(url: str, **timeouts: float) -> Relaying:
            relay = Relay(**{"first_byte_timeout_s": PATIENCE_S, "stall_timeout_s": PATIENCE_S} | timeouts)
            relaying = Relaying(url, relay)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(auto, "AutoHTTPProtocol", auto.AutoHTTPProtocol)  # put back what own_server puts there
                if request.param == "shown":
                    compat.own_server(timeouts.get("write_timeout_s", PATIENCE_S))
                relaying.at = stack.enter_context(serving(relaying, lifespan="on"))
            return relaying

        yield start


def answering(status: int, body: bytes, headers: dict[str, str]) -> Behaviour:
    """The behaviour of an upstream that gives one answer."""

    async def behave(answer: Answer) -> None:
        await answer.whole(status, body, headers)

    return behave


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error in a response, which must be OpenAI's in shape."""
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["content-type"] == "application/json"
    return error


def events_after_first(response: httpx.Response) -> list[bytes]:
    """The events of a stream, without blank ones."""
    return [event for event in response.read().split(b"\n\n") if event]


def nobody() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


# What passes


def test_an_answer_passes_unchanged(upstream: StartUpstream, relaying: StartRelay) -> None:
    body = b'{ "choices":[] ,"z": 1.0}\n'
    _, url = upstream(answering(200, body, JSON | {"x-rag-degraded": "rerank"}))
    response = relaying(url).ask()
    assert (response.status_code, response.content) == (200, body)
    assert response.headers["x-rag-degraded"] == "rerank"
    assert response.headers["content-length"] == str(len(body))


def test_a_request_body_goes_upstream_unchanged(upstream: StartUpstream, relaying: StartRelay) -> None:
    server, url = upstream(answering(200, b"{}", JSON))
    body = b'{ "model" : "chat", "temperature":1.50, "messages": [ ] }'
    httpx.post(f"{relaying(url).at}/v1/chat/completions", content=body, timeout=PATIENCE_S, trust_env=False)
    assert server.received[0].body == body
    assert server.received[0].path == "/v1/chat/completions"


def test_a_body_of_megabytes_goes_both_ways(upstream: StartUpstream, relaying: StartRelay) -> None:
    answer = b'"' + b"a" * 3_000_000 + b'"'
    server, url = upstream(answering(200, answer, JSON))
    question = json.dumps({"model": "chat", "prompt": "q" * 3_000_000}).encode()
    response = httpx.post(f"{relaying(url).at}/v1/completions", content=question, timeout=PATIENCE_S, trust_env=False)
    assert response.content == answer
    assert server.received[0].body == question


def test_events_pass_unchanged_and_as_they_come(upstream: StartUpstream, relaying: StartRelay) -> None:
    async def stream(answer: Answer) -> None:
        await answer.begin(200, SSE)
        await answer.chunk(FIRST)
        await answer.released()  # only after the test has read the first event
        await answer.chunk(SECOND)
        await answer.chunk(LAST, more=False)

    server, url = upstream(stream)
    with relaying(url).stream() as response:
        pieces = response.iter_raw()
        assert next(pieces) == FIRST
        server.release.set()
        assert b"".join(pieces) == SECOND + LAST
        assert response.headers["content-type"] == SSE["content-type"]


def test_an_answer_without_a_body_passes(upstream: StartUpstream, relaying: StartRelay) -> None:
    async def empty(answer: Answer) -> None:
        await answer.begin(204, {})
        await answer.chunk(b"", more=False)

    _, url = upstream(empty)
    response = relaying(url).ask()
    assert (response.status_code, response.content) == (204, b"")


def test_a_header_of_the_upstreams_own_does_not_pass(upstream: StartUpstream, relaying: StartRelay) -> None:
    _, url = upstream(answering(200, b"{}", JSON | {"server-secret": "1", "set-cookie": "a=b", "keep-alive": "7"}))
    headers = relaying(url).ask().headers
    assert not {"server-secret", "set-cookie", "keep-alive"} & set(headers)


# A client that goes away


def test_a_client_that_leaves_a_stream_aborts_it(upstream: StartUpstream, relaying: StartRelay) -> None:
    async def endless(answer: Answer) -> None:
        await answer.begin(200, SSE)
        await answer.chunk(FIRST)
        await answer.client_gone()

    server, url = upstream(endless)
    with relaying(url).stream() as response:
        pieces = response.iter_raw()
        assert next(pieces) == FIRST
        assert not server.aborted.is_set()
    assert server.aborted.wait(PATIENCE_S)


def test_a_client_that_leaves_before_any_answer_aborts_it(upstream: StartUpstream, relaying: StartRelay) -> None:
    async def silent(answer: Answer) -> None:
        await answer.client_gone()

    server, url = upstream(silent)
    with relaying(url).connect():
        assert server.asked.wait(PATIENCE_S)
        assert not server.aborted.is_set()
    assert server.aborted.wait(PATIENCE_S)


def test_of_a_stream_that_its_client_left_the_pieces_are_counted(upstream: StartUpstream, relaying: StartRelay) -> None:
    async def endless(answer: Answer) -> None:
        await answer.begin(200, SSE)
        await answer.chunk(FIRST)
        await answer.client_gone()

    _, url = upstream(endless)
    running = relaying(url)
    with running.connect() as client:
        assert client.recv(65536)
    assert running.finished.wait(PATIENCE_S)
    assert running.pieces == 1


# Refusals and failures before the first byte


@pytest.mark.parametrize("status", [429, 503])
def test_serves_plain_refusal_becomes_openais_429(upstream: StartUpstream, relaying: StartRelay, status: int) -> None:
    text = {"content-type": "text/plain", "retry-after": "2"}
    _, url = upstream(answering(status, b"Request dropped due to backpressure", text))
    response = relaying(url).ask()
    assert (response.status_code, response.headers["retry-after"]) == (429, "2")
    assert error_of(response)["code"] == "model_overloaded"


def test_an_upstreams_own_error_passes(upstream: StartUpstream, relaying: StartRelay) -> None:
    body = b'{"error":{"message":"max_tokens must be at least 1","type":"BadRequestError","param":null,"code":400}}'
    _, url = upstream(answering(400, body, JSON))
    response = relaying(url).ask()
    assert (response.status_code, response.content) == (400, body)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (TRACEBACK, {"content-type": "text/plain"}),
        (json.dumps({"error": {"message": TRACEBACK.decode()}}).encode(), JSON),
        (json.dumps({"error": {"message": "x" * 100_000}}).encode(), JSON),
    ],
)
def test_a_traceback_never_passes(
    upstream: StartUpstream, relaying: StartRelay, body: bytes, headers: dict[str, str]
) -> None:
    _, url = upstream(answering(500, body, headers))
    response = relaying(url).ask()
    assert response.status_code == 502
    assert error_of(response)["message"] == 'The model "chat" failed (status 500).'


def test_a_redirect_is_not_followed(upstream: StartUpstream, relaying: StartRelay) -> None:
    server, url = upstream(answering(307, b"", {"location": "/elsewhere"}))
    assert relaying(url).ask().status_code == 502
    assert len(server.received) == 1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts at an upstream that is not there follow each other at once."""
    monkeypatch.setattr(relay, "PAUSES_S", (0.0, 0.0))


ABSENCES = [
    pytest.param(503, b"<html>No server is available</html>", {"content-type": "text/html"}, id="haproxy"),
    pytest.param(404, b"Path '/internal/chat' not found", {"content-type": "text/plain"}, id="serve"),
    pytest.param(503, b'{"error":{"message":"/internal/chat"}}', JSON | {"x-llm-absent": "true"}, id="gateway"),
]


@pytest.mark.parametrize(("status", "body", "headers"), ABSENCES)
def test_an_upstream_that_is_not_there_yet_is_asked_again(
    upstream: StartUpstream, relaying: StartRelay, impatient: None, status: int, body: bytes, headers: dict[str, str]
) -> None:
    async def there_at_last(answer: Answer) -> None:
        if len(server.received) < 3:
            await answer.whole(status, body, headers)
        else:
            await answer.whole(200, b"{}", JSON)

    server, url = upstream(there_at_last)
    assert relaying(url).ask().status_code == 200
    assert len(server.received) == 3


@pytest.mark.parametrize(("status", "body", "headers"), ABSENCES)
def test_an_upstream_that_stays_away_is_503_without_the_proxys_words(
    upstream: StartUpstream, relaying: StartRelay, impatient: None, status: int, body: bytes, headers: dict[str, str]
) -> None:
    server, url = upstream(answering(status, body, headers))
    response = relaying(url).ask()
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert error_of(response)["code"] == "model_unavailable"
    assert error_of(response)["message"].startswith('The model "chat" is not available: it is starting, or')
    assert "/internal" not in response.text
    assert len(server.received) == 3


@pytest.mark.parametrize("headers", [JSON, {"content-type": "text/plain", "retry-after": "1"}])
def test_an_upstreams_own_503_is_not_asked_again(
    upstream: StartUpstream, relaying: StartRelay, impatient: None, headers: dict[str, str]
) -> None:
    server, url = upstream(answering(503, b'{"error":{"message":"The engine is asleep."}}', headers))
    assert relaying(url).ask().status_code == 503
    assert len(server.received) == 1


def test_nobody_listening_is_503_with_a_time_to_come_back(relaying: StartRelay, impatient: None) -> None:
    response = relaying(f"http://127.0.0.1:{nobody()}").ask()
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert error_of(response)["code"] == "model_unavailable"


def test_an_upstream_that_does_not_begin_is_504_and_aborted(upstream: StartUpstream, relaying: StartRelay) -> None:
    async def silent(answer: Answer) -> None:
        await answer.client_gone()

    server, url = upstream(silent)
    response = relaying(url, first_byte_timeout_s=0.2).ask()
    assert response.status_code == 504
    assert error_of(response)["message"] == 'The model "chat" did not begin to answer within 0.2 s.'
    assert server.aborted.wait(PATIENCE_S)


def test_a_head_without_a_body_has_not_begun(upstream: StartUpstream, relaying: StartRelay) -> None:
    async def head_only(answer: Answer) -> None:
        await answer.begin(200, SSE)
        await answer.client_gone()

    _, url = upstream(head_only)
    assert relaying(url, first_byte_timeout_s=0.2).ask().status_code == 504


def test_an_answer_that_breaks_before_its_first_byte_is_502(upstream: StartUpstream, relaying: StartRelay) -> None:
    async def break_off(answer: Answer) -> None:
        await answer.begin(200, SSE)
        raise ConnectionAbortedError

    _, url = upstream(break_off)
    response = relaying(url).ask()
    assert response.status_code == 502
    assert error_of(response)["code"] == "upstream_failed"


def test_a_connection_closed_without_an_answer_is_tried_once_more(relaying: StartRelay) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = relaying(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with running.connect() as client:
            first, _ = listener.accept()
            first.recv(65536)
            first.close()
            second, _ = listener.accept()
            with second:
                second.recv(65536)
                second.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                response = b""
                while not response.endswith(b"{}"):
                    response += client.recv(65536)
    assert response.startswith(b"HTTP/1.1 200")
    assert response.endswith(b"\r\n\r\n{}")


# Failures after the first byte


def test_a_stream_that_breaks_ends_with_an_error_event(upstream: StartUpstream, relaying: StartRelay) -> None:
    async def break_off(answer: Answer) -> None:
        await answer.begin(200, SSE)
        await answer.chunk(FIRST)
        raise ConnectionAbortedError

    _, url = upstream(break_off)
    response = relaying(url).ask()
    events = events_after_first(response)
    assert events[0] == FIRST.strip()
    assert json.loads(events[-1].removeprefix(b"data: "))["error"]["code"] == "upstream_failed"


def test_an_event_cut_in_two_does_not_swallow_the_error(upstream: StartUpstream, relaying: StartRelay) -> None:
    async def break_off(answer: Answer) -> None:
        await answer.begin(200, SSE)
        await answer.chunk(b'data: {"n":')
        raise ConnectionAbortedError

    _, url = upstream(break_off)
    events = events_after_first(relaying(url).ask())
    assert events[0] == b'data: {"n":'
    assert "error" in json.loads(events[1].removeprefix(b"data: "))


def test_a_stream_that_stands_still_ends_with_an_error_event(upstream: StartUpstream, relaying: StartRelay) -> None:
    async def stall(answer: Answer) -> None:
        await answer.begin(200, SSE)
        await answer.chunk(FIRST)
        await answer.client_gone()

    server, url = upstream(stall)
    events = events_after_first(relaying(url, stall_timeout_s=0.2).ask())
    assert json.loads(events[-1].removeprefix(b"data: "))["error"]["code"] == "stream_stalled"
    assert server.aborted.wait(PATIENCE_S)


def test_a_stream_that_ends_well_has_no_error_event(upstream: StartUpstream, relaying: StartRelay) -> None:
    _, url = upstream(answering(200, FIRST + LAST, SSE))
    assert relaying(url, stall_timeout_s=0.2).ask().content == FIRST + LAST


def test_an_answer_that_is_no_stream_and_breaks_closes_the_connection(
    upstream: StartUpstream, relaying: StartRelay
) -> None:
    async def break_off(answer: Answer) -> None:
        await answer.begin(200, JSON)
        await answer.chunk(b'{"choices": [')
        raise ConnectionAbortedError

    _, url = upstream(break_off)
    with pytest.raises(httpx.RemoteProtocolError):
        relaying(url).ask()


def test_an_answer_that_is_malformed_is_502(relaying: StartRelay) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = relaying(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with running.connect() as client, listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 502")


# Clients that read slowly


def test_an_upstream_waits_for_a_client_that_reads_slowly(upstream: StartUpstream, relaying: StartRelay) -> None:
    piece = b"x" * 100_000
    stuck = threading.Event()

    async def flood(answer: Answer) -> None:
        await answer.begin(200, SSE)
        for _ in range(400):
            try:
                await asyncio.wait_for(asyncio.shield(sending := asyncio.ensure_future(answer.chunk(piece))), 0.2)
            except TimeoutError:
                stuck.set()
                await sending
        await answer.chunk(b"", more=False)

    _, url = upstream(flood)
    with relaying(url).stream() as response:
        assert stuck.wait(PATIENCE_S), "40 MB were read for a client that read none of it"
        assert sum(map(len, response.iter_raw())) == 400 * len(piece)


def test_a_client_that_reads_nothing_is_cut(upstream: StartUpstream, relaying: StartRelay) -> None:
    async def flood(answer: Answer) -> None:
        gone = asyncio.ensure_future(answer.client_gone())
        await answer.begin(200, SSE)
        while not gone.done():
            await answer.chunk(b"x" * 100_000)

    server, url = upstream(flood)
    with relaying(url, write_timeout_s=0.3).connect():
        assert server.aborted.wait(PATIENCE_S)


def test_a_client_that_reads_a_little_at_a_time_is_not_cut(upstream: StartUpstream, relaying: StartRelay) -> None:
    piece = b"x" * 100_000

    async def flood(answer: Answer) -> None:
        await answer.begin(200, SSE)
        for _ in range(100):
            await answer.chunk(piece)
        await answer.chunk(b"", more=False)

    _, url = upstream(flood)
    with relaying(url, write_timeout_s=2).connect() as client:
        received = bytearray()
        while not received.endswith(b"0\r\n\r\n"):
            read = client.recv(250_000)
            assert read, f"cut after {len(received)} bytes"
            received += read
            time.sleep(0.06)  # after each of 40 reads and more: longer in all than the time to write
    assert received.count(b"x") >= 100 * len(piece)


# A replica's own port


def test_a_target_is_asked_in_place_of_the_url(upstream: StartUpstream, relaying: StartRelay) -> None:
    proxy, url = upstream(answering(200, b"{}", JSON))
    replica, at = upstream(answering(200, FIRST, SSE))
    running = relaying(url + "/internal/chat")
    running.options = {"target": ("127.0.0.1", port_of(at))}
    assert running.ask().content == FIRST
    assert replica.received[0].path == "/internal/chat/v1/chat/completions"
    assert proxy.received == []


@pytest.mark.parametrize("repeatable", [True, False])
def test_the_url_is_asked_where_the_target_is_gone(
    upstream: StartUpstream, relaying: StartRelay, repeatable: bool
) -> None:
    _, url = upstream(answering(200, FIRST, SSE))
    running = relaying(url)
    running.options = {"target": ("127.0.0.1", nobody()), "repeatable": repeatable}
    assert running.ask().content == FIRST


@pytest.mark.parametrize("status", [404, 429, 503])
def test_the_url_is_asked_where_the_target_has_no_room(
    upstream: StartUpstream, relaying: StartRelay, status: int
) -> None:
    _, url = upstream(answering(200, FIRST, SSE))
    _, at = upstream(answering(status, b"Request dropped due to backpressure", TEXT))
    running = relaying(url)
    running.options = {"target": ("127.0.0.1", port_of(at))}
    assert running.ask().content == FIRST


def test_a_models_own_refusal_at_the_target_passes(upstream: StartUpstream, relaying: StartRelay) -> None:
    proxy, url = upstream(answering(200, FIRST, SSE))
    _, at = upstream(answering(404, b'{"error":{"message":"no such adapter"}}', JSON))
    running = relaying(url)
    running.options = {"target": ("127.0.0.1", port_of(at))}
    assert running.ask().status_code == 404
    assert proxy.received == []


# Other models that could answer


def test_with_alternatives_an_absent_upstream_is_not_waited_for(upstream: StartUpstream, relaying: StartRelay) -> None:
    server, url = upstream(answering(503, b"<html>No server is available</html>", {"content-type": "text/html"}))
    running = relaying(url)
    running.options = {"alternatives": True}
    assert error_of(running.ask())["code"] == "model_unavailable"
    assert len(server.received) == 1


def test_with_alternatives_too_long_a_prompt_is_an_error_of_its_own(
    upstream: StartUpstream, relaying: StartRelay
) -> None:
    _, url = upstream(answering(400, OVERFLOW, JSON))
    running = relaying(url)
    running.options = {"alternatives": True}
    response = running.ask()
    assert (response.status_code, error_of(response)["code"]) == (400, "context_length_exceeded")
    assert running.exchanges[0].status == 0


def test_without_alternatives_the_models_words_about_it_pass(upstream: StartUpstream, relaying: StartRelay) -> None:
    _, url = upstream(answering(400, OVERFLOW, JSON))
    response = relaying(url).ask()
    assert (response.status_code, response.json()) == (400, json.loads(OVERFLOW))


@pytest.mark.parametrize(
    ("status", "raised"), [(500, 502), (429, 429), (503, 503), (402, 502), (403, 502), (404, 503), (408, 504)]
)
def test_with_alternatives_a_models_own_failure_is_raised(
    upstream: StartUpstream, relaying: StartRelay, status: int, raised: int
) -> None:
    _, url = upstream(answering(status, b'{"error":{"message":"the engine is dead"}}', JSON))
    running = relaying(url)
    running.options = {"alternatives": True}
    assert running.ask().status_code == raised
    assert running.exchanges[0].status == 0
    running.options = {}
    assert running.ask().status_code == status
    assert running.exchanges[1].status == status


def test_with_alternatives_a_model_without_room_is_busy_and_not_broken(
    upstream: StartUpstream, relaying: StartRelay
) -> None:
    headers = {"content-type": "text/plain", "retry-after": "3"}
    running = relaying(upstream(answering(503, b"Request dropped due to backpressure", headers))[1])
    running.options = {"alternatives": True}
    assert running.ask().status_code == 429


def test_an_attempt_may_have_a_timeout_of_its_own(upstream: StartUpstream, relaying: StartRelay) -> None:
    async def silent(answer: Answer) -> None:
        await answer.client_gone()

    _, url = upstream(silent)
    running = relaying(url)
    running.arguments = {"first_byte_timeout_s": 0.2}
    assert error_of(running.ask())["message"] == 'The model "chat" did not begin to answer within 0.2 s.'


# What is kept about an answer


class Withholding(Reader):
    """A reader that withholds one event, and the word it was told to hold back until the end."""

    def __init__(self, event: bytes, held: bytes = b"held") -> None:
        super().__init__()
        self.event = event
        self.held = held

    def feed(self, chunk: bytes) -> bytes:
        return chunk.replace(self.event, b"")

    def end(self) -> bytes:
        return self.held

    def tokens(self) -> Tokens:
        return Tokens(prompt=3, completion=2)


async def three_pieces(answer: Answer) -> None:
    await answer.begin(200, SSE)
    for piece in (FIRST, SECOND, LAST):
        await answer.chunk(piece)
        await asyncio.sleep(0.05)
    await answer.chunk(b"", more=False)


def test_pieces_and_tokens_are_counted(upstream: StartUpstream, relaying: StartRelay) -> None:
    async def one_by_one(answer: Answer) -> None:
        await answer.begin(200, SSE)
        for piece in (FIRST, SECOND, LAST):
            await answer.chunk(piece)
            await answer.released()  # else two could come as one
            answer.upstream.release.clear()
        await answer.chunk(b"", more=False)

    server, url = upstream(one_by_one)
    running = relaying(url)
    running.arguments = {"reader": Withholding(b"nothing", held=b"")}
    with running.stream() as response:
        read = []
        for piece in response.iter_raw():
            read.append(piece)
            server.release.set()
    assert running.finished.wait(PATIENCE_S)
    assert read == [FIRST, SECOND, LAST]
    assert response.headers["x-llm-version"] == "v1"
    (exchange,) = running.exchanges
    assert (exchange.status, exchange.broken, exchange.pieces) == (200, False, 3)
    assert (exchange.prompt_tokens, exchange.completion_tokens) == (3, 2)
    assert exchange.first_byte_s is not None
    assert exchange.last_byte_s is not None
    assert exchange.last_byte_s > exchange.first_byte_s


@pytest.mark.parametrize("withheld", [FIRST, SECOND, LAST])
def test_what_the_reader_withholds_does_not_pass(
    upstream: StartUpstream, relaying: StartRelay, withheld: bytes
) -> None:
    for behaviour in (three_pieces, answering(200, FIRST + SECOND + LAST, SSE)):
        _, url = upstream(behaviour)
        running = relaying(url)
        running.arguments = {"reader": Withholding(withheld)}
        assert running.ask().content == (FIRST + SECOND + LAST).replace(withheld, b"") + b"held"


def test_a_broken_stream_gives_up_what_was_held_back_before_the_error(
    upstream: StartUpstream, relaying: StartRelay
) -> None:
    async def break_off(answer: Answer) -> None:
        await answer.begin(200, SSE)
        await answer.chunk(FIRST)
        raise ConnectionAbortedError

    _, url = upstream(break_off)
    running = relaying(url)
    running.arguments = {"reader": Withholding(b"nothing")}
    events = events_after_first(running.ask())
    assert events[:2] == [FIRST.strip(), b"held"]
    assert "error" in json.loads(events[2].removeprefix(b"data: "))
    assert running.exchanges[0].broken


def test_the_connection_is_used_where_it_is_shown(
    upstream: StartUpstream, relaying: StartRelay, request: pytest.FixtureRequest
) -> None:
    _, url = upstream(three_pieces)
    running = relaying(url)
    running.ask()
    assert running.shown == ("[shown]" in request.node.name)


# Answers that nobody reads


def discarded(outbound: Outbound, stall_timeout_s: float = PATIENCE_S) -> int:
    async def discard() -> int:
        relay = Relay(first_byte_timeout_s=PATIENCE_S, stall_timeout_s=stall_timeout_s)
        status = await relay.discard(outbound)
        await relay.close()
        return status

    return asyncio.run(discard())


def test_a_discarded_answer_has_its_status(upstream: StartUpstream) -> None:
    server, url = upstream(three_pieces)
    assert discarded(Outbound("POST", url, {}, b"{}", True)) == 200
    assert server.received[0].body == b"{}"


def test_no_answer_to_discard_is_no_status(upstream: StartUpstream) -> None:
    async def stall(answer: Answer) -> None:
        await answer.begin(200, SSE)
        await answer.chunk(FIRST)
        await answer.client_gone()

    server, url = upstream(stall)
    assert discarded(Outbound("POST", url, {}, b"{}", True), stall_timeout_s=0.2) == 0
    assert server.aborted.wait(PATIENCE_S)
    assert discarded(Outbound("POST", f"http://127.0.0.1:{nobody()}", {}, b"{}", True, alternatives=True)) == 0
