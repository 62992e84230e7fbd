import json
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from serve_apps.gateway import relay
from tests.serve_apps.gateway.conftest import GatewayServer, chat_at
from tests.serve_apps.gateway.servers import PATIENCE_S, Answer, Behaviour, Upstream

StartUpstream = Callable[[Behaviour], tuple[Upstream, str]]
StartGateway = Callable[..., GatewayServer]

SSE = {"content-type": "text/event-stream; charset=utf-8"}
JSON = {"content-type": "application/json"}
FIRST, SECOND, LAST = b'data: {"n":1}\n\n', b'data: {"n": "\xc3\xa9"}\r\n\r\n', b"data: [DONE]\n\n"
TRACEBACK = b'Traceback (most recent call last):\n  File "/app/secret.py", line 7, in step\nKeyError: 1'


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


# What passes


def test_an_answer_passes_unchanged(upstream: StartUpstream, gateway: StartGateway) -> None:
    body = b'{ "choices":[] ,"z": 1.0}\n'
    _, url = upstream(answering(200, body, JSON | {"x-rag-degraded": "rerank"}))
    response = gateway(chat_at(url)).chat()
    assert (response.status_code, response.content) == (200, body)
    assert response.headers["x-rag-degraded"] == "rerank"
    assert response.headers["content-length"] == str(len(body))


def test_a_request_body_goes_upstream_unchanged(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(answering(200, b"{}", JSON))
    body = b'{ "model" : "chat", "temperature":1.50, "messages": [ ] }'
    gateway(chat_at(url)).client.post("/v1/chat/completions", content=body)
    assert server.received[0].body == body
    assert server.received[0].path == "/v1/chat/completions"


def test_a_body_of_megabytes_goes_both_ways(upstream: StartUpstream, gateway: StartGateway) -> None:
    answer = b'"' + b"a" * 3_000_000 + b'"'
    server, url = upstream(answering(200, answer, JSON))
    question = json.dumps({"model": "chat", "prompt": "q" * 3_000_000}).encode()
    response = gateway(chat_at(url)).client.post("/v1/completions", content=question)
    assert response.content == answer
    assert server.received[0].body == question


def test_events_pass_unchanged_and_as_they_come(upstream: StartUpstream, gateway: StartGateway) -> None:
    async def stream(answer: Answer) -> None:
        await answer.begin(200, SSE)
        await answer.chunk(FIRST)
        await answer.released()  # only after the test has read the first event
        await answer.chunk(SECOND)
        await answer.chunk(LAST, more=False)

    server, url = upstream(stream)
    body = {"model": "chat", "stream": True}
    with gateway(chat_at(url)).client.stream("POST", "/v1/chat/completions", json=body) as response:
        pieces = response.iter_raw()
        assert next(pieces) == FIRST
        server.release.set()
        assert b"".join(pieces) == SECOND + LAST
        assert response.headers["content-type"] == SSE["content-type"]


def test_an_answer_without_a_body_passes(upstream: StartUpstream, gateway: StartGateway) -> None:
    async def empty(answer: Answer) -> None:
        await answer.begin(204, {})
        await answer.chunk(b"", more=False)

    _, url = upstream(empty)
    response = gateway(chat_at(url)).chat()
    assert (response.status_code, response.content) == (204, b"")


def test_a_header_of_the_upstreams_own_does_not_pass(upstream: StartUpstream, gateway: StartGateway) -> None:
    _, url = upstream(answering(200, b"{}", JSON | {"server-secret": "1", "set-cookie": "a=b", "keep-alive": "7"}))
    headers = gateway(chat_at(url)).chat().headers
    assert not {"server-secret", "set-cookie", "keep-alive"} & set(headers)


# A client that goes away


def test_a_client_that_leaves_a_stream_aborts_it(upstream: StartUpstream, gateway: StartGateway) -> None:
    async def endless(answer: Answer) -> None:
        await answer.begin(200, SSE)
        await answer.chunk(FIRST)
        await answer.client_gone()

    server, url = upstream(endless)
    body = {"model": "chat", "stream": True}
    with gateway(chat_at(url)).client.stream("POST", "/v1/chat/completions", json=body) as response:
        pieces = response.iter_raw()
        assert next(pieces) == FIRST
        assert not server.aborted.is_set()
    assert server.aborted.wait(PATIENCE_S)


def test_a_client_that_leaves_before_any_answer_aborts_it(upstream: StartUpstream, gateway: StartGateway) -> None:
    async def silent(answer: Answer) -> None:
        await answer.client_gone()

    server, url = upstream(silent)
    running = gateway(chat_at(url))
    host, port = running.url.removeprefix("http://").split(":")
    body = b'{"model": "chat"}'
    with socket.create_connection((host, int(port))) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\ncontent-length: %d\r\n\r\n%s"
            % (running.key.encode(), len(body), body)
        )
        assert server.asked.wait(PATIENCE_S)
        assert not server.aborted.is_set()
    assert server.aborted.wait(PATIENCE_S)


# Refusals and failures before the first byte


@pytest.mark.parametrize("status", [429, 503])
def test_serves_plain_refusal_becomes_openais_429(upstream: StartUpstream, gateway: StartGateway, status: int) -> None:
    text = {"content-type": "text/plain", "retry-after": "2"}
    _, url = upstream(answering(status, b"Request dropped due to backpressure", text))
    response = gateway(chat_at(url)).chat()
    assert (response.status_code, response.headers["retry-after"]) == (429, "2")
    assert error_of(response)["code"] == "model_overloaded"


def test_an_upstreams_own_error_passes(upstream: StartUpstream, gateway: StartGateway) -> None:
    body = b'{"error":{"message":"max_tokens must be at least 1","type":"BadRequestError","param":null,"code":400}}'
    _, url = upstream(answering(400, body, JSON))
    response = gateway(chat_at(url)).chat()
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
    upstream: StartUpstream, gateway: StartGateway, body: bytes, headers: dict[str, str]
) -> None:
    _, url = upstream(answering(500, body, headers))
    response = gateway(chat_at(url)).chat()
    assert response.status_code == 502
    assert error_of(response)["message"] == 'The model "chat" failed (status 500).'


def test_a_redirect_is_not_followed(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(answering(307, b"", {"location": "/elsewhere"}))
    assert gateway(chat_at(url)).chat().status_code == 502
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
    upstream: StartUpstream, gateway: StartGateway, impatient: None, status: int, body: bytes, headers: dict[str, str]
) -> None:
    async def there_at_last(answer: Answer) -> None:
        if len(server.received) < 3:
            await answer.whole(status, body, headers)
        else:
            await answer.whole(200, b"{}", JSON)

    server, url = upstream(there_at_last)
    assert gateway(chat_at(url)).chat().status_code == 200
    assert len(server.received) == 3


@pytest.mark.parametrize(("status", "body", "headers"), ABSENCES)
def test_an_upstream_that_stays_away_is_503_without_the_proxys_words(
    upstream: StartUpstream, gateway: StartGateway, impatient: None, status: int, body: bytes, headers: dict[str, str]
) -> None:
    server, url = upstream(answering(status, body, headers))
    response = gateway(chat_at(url)).chat()
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert error_of(response)["code"] == "model_unavailable"
    assert error_of(response)["message"].startswith('The model "chat" is not available: it is starting, or')
    assert "/internal" not in response.text
    assert len(server.received) == 3


@pytest.mark.parametrize("headers", [JSON, {"content-type": "text/plain", "retry-after": "1"}])
def test_an_upstreams_own_503_is_not_asked_again(
    upstream: StartUpstream, gateway: StartGateway, impatient: None, headers: dict[str, str]
) -> None:
    server, url = upstream(answering(503, b'{"error":{"message":"The engine is asleep."}}', headers))
    assert gateway(chat_at(url)).chat().status_code == 503
    assert len(server.received) == 1


def test_nobody_listening_is_503_with_a_time_to_come_back(gateway: StartGateway, impatient: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    response = gateway(chat_at(f"http://127.0.0.1:{port}")).chat()
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert error_of(response)["code"] == "model_unavailable"


def test_an_upstream_that_does_not_begin_is_504_and_aborted(upstream: StartUpstream, gateway: StartGateway) -> None:
    async def silent(answer: Answer) -> None:
        await answer.client_gone()

    server, url = upstream(silent)
    response = gateway(chat_at(url), firstByteTimeoutS=0.2).chat()
    assert response.status_code == 504
    assert error_of(response)["message"] == 'The model "chat" did not begin to answer within 0.2 s.'
    assert server.aborted.wait(PATIENCE_S)


def test_a_head_without_a_body_has_not_begun(upstream: StartUpstream, gateway: StartGateway) -> None:
    async def head_only(answer: Answer) -> None:
        await answer.begin(200, SSE)
        await answer.client_gone()

    _, url = upstream(head_only)
    assert gateway(chat_at(url), firstByteTimeoutS=0.2).chat().status_code == 504


def test_an_answer_that_breaks_before_its_first_byte_is_502(upstream: StartUpstream, gateway: StartGateway) -> None:
    async def break_off(answer: Answer) -> None:
        await answer.begin(200, SSE)
        raise ConnectionAbortedError

    _, url = upstream(break_off)
    response = gateway(chat_at(url)).chat()
    assert response.status_code == 502
    assert error_of(response)["code"] == "upstream_failed"


def test_a_connection_closed_without_an_answer_is_tried_once_more(gateway: StartGateway) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = gateway(chat_at(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        with socket.create_connection(running.url.removeprefix("http://").split(":"), PATIENCE_S) as client:  # type: ignore[arg-type]
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n"
                b"content-length: 17\r\nconnection: close\r\n\r\n%s" % (running.key.encode(), b'{"model": "chat"}')
            )
            first, _ = listener.accept()
            first.recv(65536)
            first.close()
            second, _ = listener.accept()
            with second:
                second.recv(65536)
                second.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                response = b"".join(iter(lambda: client.recv(65536), b""))
    assert response.startswith(b"HTTP/1.1 200")
    assert response.endswith(b"\r\n\r\n{}")


# Failures after the first byte


def test_a_stream_that_breaks_ends_with_an_error_event(upstream: StartUpstream, gateway: StartGateway) -> None:
    async def break_off(answer: Answer) -> None:
        await answer.begin(200, SSE)
        await answer.chunk(FIRST)
        raise ConnectionAbortedError

    _, url = upstream(break_off)
    response = gateway(chat_at(url)).chat(stream=True)
    events = events_after_first(response)
    assert events[0] == FIRST.strip()
    assert json.loads(events[-1].removeprefix(b"data: "))["error"]["code"] == "upstream_failed"


def test_an_event_cut_in_two_does_not_swallow_the_error(upstream: StartUpstream, gateway: StartGateway) -> None:
    async def break_off(answer: Answer) -> None:
        await answer.begin(200, SSE)
        await answer.chunk(b'data: {"n":')
        raise ConnectionAbortedError

    _, url = upstream(break_off)
    events = events_after_first(gateway(chat_at(url)).chat(stream=True))
    assert events[0] == b'data: {"n":'
    assert "error" in json.loads(events[1].removeprefix(b"data: "))


def test_a_stream_that_stands_still_ends_with_an_error_event(upstream: StartUpstream, gateway: StartGateway) -> None:
    async def stall(answer: Answer) -> None:
        await answer.begin(200, SSE)
        await answer.chunk(FIRST)
        await answer.client_gone()

    server, url = upstream(stall)
    events = events_after_first(gateway(chat_at(url), stallTimeoutS=0.2).chat(stream=True))
    assert json.loads(events[-1].removeprefix(b"data: "))["error"]["code"] == "stream_stalled"
    assert server.aborted.wait(PATIENCE_S)


def test_a_stream_that_ends_well_has_no_error_event(upstream: StartUpstream, gateway: StartGateway) -> None:
    _, url = upstream(answering(200, FIRST + LAST, SSE))
    assert gateway(chat_at(url), stallTimeoutS=0.2).chat(stream=True).content == FIRST + LAST


def test_an_answer_that_is_no_stream_and_breaks_closes_the_connection(
    upstream: StartUpstream, gateway: StartGateway
) -> None:
    async def break_off(answer: Answer) -> None:
        await answer.begin(200, JSON)
        await answer.chunk(b'{"choices": [')
        raise ConnectionAbortedError

    _, url = upstream(break_off)
    with pytest.raises(httpx.RemoteProtocolError):
        gateway(chat_at(url)).chat()
