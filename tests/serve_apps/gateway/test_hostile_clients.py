"""Clients that speak HTTP badly, or with bad intent, to a real gateway; the upstream says what it was asked."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.serve_apps.gateway.conftest import INTERNAL_TOKEN, GatewayServer, chat_at
from tests.serve_apps.gateway.servers import Answer, Behaviour, Upstream
from tests.serve_apps.gateway.wire import Reply, connected

StartUpstream = Callable[[Behaviour], tuple[Upstream, str]]
StartGateway = Callable[..., GatewayServer]

PATH = "/v1/chat/completions"
CHAT = b'{"model": "chat"}'
#: What a smuggler would like the upstream to see.
SMUGGLED = b"POST /internal/chat/smuggled HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"


async def ok(answer: Answer) -> None:
    await answer.whole(200, b"{}", {"content-type": "application/json"})


@pytest.fixture
def server_and_gateway(upstream: StartUpstream, gateway: StartGateway) -> tuple[Upstream, GatewayServer]:
    server, url = upstream(ok)
    docs = {"docs": {"url": url + "/internal/rag", "task": "pipeline"}}
    return server, gateway(chat_at(url + "/internal/chat") | docs)


Both = tuple[Upstream, GatewayServer]


def head(running: GatewayServer, *lines: str | bytes, start: str = f"POST {PATH} HTTP/1.1") -> bytes:
    """A request's head with a key of ours, and ``lines``."""
    own = [start, "host: gateway", f"authorization: Bearer {running.key}", "content-type: application/json"]
    return b"\r\n".join(line if isinstance(line, bytes) else line.encode() for line in [*own, *lines]) + b"\r\n\r\n"


def whole(
    running: GatewayServer, body: bytes = CHAT, *lines: str | bytes, start: str = f"POST {PATH} HTTP/1.1"
) -> bytes:
    """A request with its length and ``body``."""
    return head(running, f"content-length: {len(body)}", *lines, start=start) + body


def answers(running: GatewayServer, data: bytes) -> list[Reply]:
    """What the server says to ``data`` until it closes the connection, which it is asked to do after the last."""
    with connected(running.url) as wire:
        wire.send(data)
        return wire.replies()


def last(running: GatewayServer) -> bytes:
    """A request that ends the connection, and shows that the one before it was taken as it was meant."""
    return head(running, "connection: close", start="GET /healthz HTTP/1.1")


def code_of(reply: Reply) -> Any:
    """The code of an error in OpenAI's shape."""
    assert reply.headers["content-type"].startswith("application/json")
    error = json.loads(reply.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["code"]


def paths(server: Upstream) -> list[str]:
    return [received.path for received in server.received]


# What is not HTTP never becomes a request. The server that parses it says so (HAProxy before us in OpenAI's shape).

FRAMING = {
    "two lengths that differ": ["content-length: 17", "content-length: 2"],
    "two lengths that agree": ["content-length: 17", "content-length: 17"],
    "a list of lengths": ["content-length: 17, 17"],
    "a length and chunks": ["content-length: 17", "transfer-encoding: chunked"],
    "chunks and a length": ["transfer-encoding: chunked", "content-length: 17"],
    "a signed length": ["content-length: +17"],
    "a negative length": ["content-length: -1"],
    "a hexadecimal length": ["content-length: 0x11"],
    "a length beyond 64 bits": ["content-length: 99999999999999999999999"],
    "a space before the colon": ["content-length : 17"],
    "a folded header": ["x-request-id: a", " content-length: 17"],
    "a bare line feed": [b"x-request-id: a\ncontent-length: 17"],
    "a bare carriage return": [b"x-request-id: a\rcontent-length: 17", "content-length: 17"],
    "NUL in a value": [b"x-request-id: a\x00b", "content-length: 17"],
    "NUL in a name": [b"x-\x00: a", "content-length: 17"],
    "a header without a colon": ["content-length 17"],
}


@pytest.mark.parametrize("lines", FRAMING.values(), ids=FRAMING.keys())
def test_a_request_whose_end_is_ambiguous_is_refused_and_the_connection_closed(
    server_and_gateway: Both, lines: list[str | bytes]
) -> None:
    server, running = server_and_gateway
    replies = answers(running, head(running, *lines) + CHAT + SMUGGLED + last(running))
    assert [reply.status for reply in replies] == [400]
    assert server.received == []


CHUNKS = {
    "a size that is no number": b"zz\r\n" + CHAT + b"\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"fffffffffffffffff\r\n" + CHAT + b"\r\n0\r\n\r\n",
    "a negative size": b"-11\r\n" + CHAT + b"\r\n0\r\n\r\n",
    "a size in 0x": b"0x11\r\n" + CHAT + b"\r\n0\r\n\r\n",
    "more than its size": b"2\r\n" + CHAT + b"\r\n0\r\n\r\n",
    "no end of line": b"11\r\n" + CHAT + b"0\r\n\r\n",
}


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS.keys())
def test_a_chunk_that_is_wrong_ends_the_request_and_the_connection(server_and_gateway: Both, body: bytes) -> None:
    server, running = server_and_gateway
    replies = answers(running, head(running, "transfer-encoding: chunked") + body + SMUGGLED + last(running))
    assert [reply.status for reply in replies] == [400]
    assert server.received == []


@pytest.mark.parametrize("coding", ["xchunked", "chunked, identity", "identity", "gzip, chunked", "chunked, chunked"])
def test_a_transfer_coding_that_is_not_just_chunked_brings_nothing_to_the_upstream_but_what_was_meant(
    server_and_gateway: Both, coding: str
) -> None:
    server, running = server_and_gateway
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(CHAT), CHAT)
    replies = answers(running, head(running, f"transfer-encoding: {coding}", "connection: close") + chunked)
    assert all(reply.status == 200 or 400 <= reply.status < 500 for reply in replies)
    assert [received.body for received in server.received] in ([], [CHAT])


@pytest.mark.parametrize(
    "start",
    [
        "GET /",
        f"POST {PATH} HTTP/9.9",
        f"POST {PATH} HTTX/1.1",
        f"BREW {PATH} HTTP/1.1",
        f"POST {PATH}\x00 HTTP/1.1",
        f"POST {PATH}é HTTP/1.1",
        "PRI * HTTP/2.0",
        f"post {PATH} HTTP/1.1",
        "POST http://[::1 HTTP/1.1",
        "CONNECT evil:443 HTTP/1.1",
    ],
)
def test_a_request_line_that_is_wrong_is_refused(server_and_gateway: Both, start: str) -> None:
    server, running = server_and_gateway
    replies = answers(running, whole(running, CHAT, "connection: close", start=start))
    assert [reply.status for reply in replies] in ([400], [404], [405])
    assert server.received == []


def test_what_is_not_http_at_all_is_refused(server_and_gateway: Both) -> None:
    server, running = server_and_gateway
    assert [reply.status for reply in answers(running, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")] == [400]
    assert server.received == []


# What is HTTP, if unusual, is taken as it is meant


def test_chunks_with_extensions_are_put_together(server_and_gateway: Both) -> None:
    server, running = server_and_gateway
    body = b"5;name=value\r\n" + CHAT[:5] + b"\r\n00c\r\n" + CHAT[5:] + b"\r\n0\r\n\r\n"
    first, second = answers(running, head(running, "transfer-encoding: chunked") + body + last(running))
    assert (first.status, second.status) == (200, 200)
    assert server.received[0].body == CHAT
    assert server.received[0].headers["content-length"] == "17"


def test_trailers_are_no_headers(server_and_gateway: Both) -> None:
    server, running = server_and_gateway
    body = b"11\r\n" + CHAT + b"\r\n0\r\naccept: trailer/x\r\nauthorization: Bearer x\r\nx-new: 1\r\n\r\n"
    with connected(running.url) as wire:
        wire.send(head(running, "transfer-encoding: chunked", "expect: 100-continue"))
        assert wire.line() == b"HTTP/1.1 100 Continue"  # the gateway has the headers, and reads the body
        assert wire.line() == b""
        wire.send(body)
        reply = wire.reply()
    assert reply is not None
    assert reply.status == 200
    assert not {"accept", "authorization", "x-new"} & set(server.received[0].headers)


def test_trailers_that_come_with_the_headers_make_the_client_nobody_else(server_and_gateway: Both) -> None:
    server, running = server_and_gateway
    body = b"11\r\n" + CHAT + b"\r\n0\r\nx-llm-tenant: other\r\nx-request-timeout-seconds: 1\r\n\r\n"
    first, second = answers(running, head(running, "transfer-encoding: chunked") + body + last(running))
    assert (first.status, second.status) == (200, 200)
    seen = server.received[0].headers
    assert seen["x-llm-tenant"] == "acme"
    assert "x-request-timeout-seconds" not in seen


def test_a_client_that_expects_100_continue_is_told_to_go_on(server_and_gateway: Both) -> None:
    server, running = server_and_gateway
    with connected(running.url) as wire:
        wire.send(head(running, f"content-length: {len(CHAT)}", "expect: 100-continue"))
        wire.send(CHAT)  # HTTPResponse passes over 100, so the body may as well be on its way
        reply = wire.reply()
    assert reply is not None
    assert reply.status == 200
    assert "expect" not in server.received[0].headers


def test_a_client_that_expects_100_continue_and_is_refused_sends_no_body(server_and_gateway: Both) -> None:
    server, running = server_and_gateway
    with connected(running.url) as wire:
        wire.send(head(running, f"content-length: {10**9}", "expect: 100-continue"))
        reply = wire.reply()
    assert reply is not None
    assert (reply.status, code_of(reply)) == (413, "body_too_large")
    assert server.received == []


def test_pipelined_requests_are_answered_each_in_turn(server_and_gateway: Both) -> None:
    server, running = server_and_gateway
    bad = whole(running, b'{"model": "nope"}')
    replies = answers(running, whole(running) + bad + whole(running) + last(running))
    assert [reply.status for reply in replies] == [200, 404, 200, 200]
    assert len(server.received) == 2


def test_what_follows_a_body_is_a_request_of_its_own_and_needs_its_own_key(server_and_gateway: Both) -> None:
    server, running = server_and_gateway
    replies = answers(running, whole(running) + SMUGGLED + last(running))
    assert [reply.status for reply in replies] == [200, 404, 200]
    assert paths(server) == [f"/internal/chat{PATH}"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
def test_a_request_in_the_body_of_another_is_its_body(server_and_gateway: Both, method: str) -> None:
    server, running = server_and_gateway
    first = whole(running, SMUGGLED, start=f"{method} /v1/models HTTP/1.1")
    with connected(running.url) as wire:
        wire.send(first + last(running))
        if method == "HEAD":
            return  # its answer has a length and no body, which is all that HTTPResponse cannot be told
        replies = wire.replies()
    assert [reply.status for reply in replies] == [200 if method == "GET" else 405, 200]
    assert server.received == []


def test_a_target_with_a_host_leads_no_further_than_one_without(server_and_gateway: Both) -> None:
    server, running = server_and_gateway
    start = f"POST http://evil.invalid{PATH} HTTP/1.1"
    first, second = answers(running, whole(running, start=start) + last(running))
    assert (first.status, second.status) == (200, 200)
    assert "evil" not in server.received[0].headers["host"]


@pytest.mark.parametrize("start", [f"POST {PATH} HTTP/1.0", f"POST {PATH} HTTP/1.1"])
def test_a_request_without_a_host_is_answered(server_and_gateway: Both, start: str) -> None:
    server, running = server_and_gateway
    data = whole(running, CHAT, "connection: close", start=start).replace(b"host: gateway\r\n", b"")
    assert [reply.status for reply in answers(running, data)] == [200]
    assert server.received[0].body == CHAT


def test_an_upgrade_that_is_not_offered_is_passed_over(server_and_gateway: Both) -> None:
    _, running = server_and_gateway
    upgrade = ["connection: upgrade, close", "upgrade: h2c"]
    assert [reply.status for reply in answers(running, head(running, *upgrade, start="GET /healthz HTTP/1.1"))] == [200]


def test_websockets_are_refused(server_and_gateway: Both) -> None:
    server, running = server_and_gateway
    upgrade = [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: " + "a" * 22 + "==",
    ]
    (reply,) = answers(running, head(running, *upgrade, start="GET /v1/realtime HTTP/1.1"))
    assert 400 <= reply.status < 500
    assert server.received == []


# Paths and methods


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions/",
        "/v1/chat/completions;a=b",
        "/v1/chat/completions%00",
        "/v1/chat/completions%0d%0ax:%20y",
        "/v1/chat/%2e%2e/completions",
        "/v1/chat/../chat/completions",
        "/v1/chat/completions/..%2f..",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1/%c0%af/chat",
        "/v1/%ff%fe",
        "/V1/CHAT/COMPLETIONS",
        "/internal/chat/v1/chat/completions",
        "/internal%2fchat/v1/chat/completions",
        "/%69nternal/chat/v1/chat/completions",
        "/-/../internal/chat/v1/chat/completions",
        "/v1/rag/docs/%2e%2e/%2e%2e/chat/v1/chat/completions",
        "/v1/rag/docs/..%2f..%2fchat",
        "/v1/rag/docs/a%5c..%5cb",
        "/v1/rag/../rag/docs/query",
        "/v1/rag/nope%2fdocs/query",
        "/" + "a" * 8000,
    ],
)
def test_a_path_that_nobody_answers_is_404(server_and_gateway: Both, path: str) -> None:
    server, running = server_and_gateway
    first, second = answers(running, whole(running, start=f"POST {path} HTTP/1.1") + last(running))
    assert (first.status, second.status) == (404, 200)
    assert code_of(first) in {"unknown_path", "pipeline_not_found"}
    assert len(first.body) < 1000
    assert server.received == []


@pytest.mark.parametrize("path", ["/v1/chat%2fcompletions", "/v1/%63hat/completions", f"{PATH}?a=b", f"{PATH}?%00"])
def test_another_spelling_of_a_path_means_the_path(server_and_gateway: Both, path: str) -> None:
    server, running = server_and_gateway
    first, second = answers(running, whole(running, start=f"POST {path} HTTP/1.1") + last(running))
    assert (first.status, second.status) == (200, 200)
    assert paths(server) == [f"/internal/chat{PATH}"]


def test_a_pipeline_sees_what_was_checked_and_no_other_spelling(server_and_gateway: Both) -> None:
    server, running = server_and_gateway
    start = "POST /v1/rag/docs/query%0d%0a%3fx%23y%25 HTTP/1.1"
    first, _ = answers(running, whole(running, start=start) + last(running))
    assert first.status == 200
    assert paths(server) == ["/internal/rag/v1/rag/docs/query\r\n?x#y%"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_another_method_is_405(server_and_gateway: Both, method: str) -> None:
    server, running = server_and_gateway
    first, second = answers(running, whole(running, start=f"{method} {PATH} HTTP/1.1") + last(running))
    assert (first.status, second.status) == (405, 200)
    assert (code_of(first), first.headers["allow"]) == ("method_not_allowed", "POST")
    assert server.received == []


# Headers


@pytest.mark.parametrize(
    "line",
    [
        "x-request-id: a b",
        'x-request-id: "',
        "x-request-id: " + "x" * 129,
        b"x-request-id: \xc3\xa9\xff",
        b"x-request-id: a\tb",
    ],
)
def test_a_request_id_that_is_not_sane_is_neither_echoed_nor_passed_on(
    server_and_gateway: Both, line: str | bytes
) -> None:
    server, running = server_and_gateway
    first, _ = answers(running, whole(running, CHAT, line) + last(running))
    assert first.status == 200
    given = (line if isinstance(line, bytes) else line.encode()).partition(b": ")[2].decode("latin-1")
    assert first.headers["x-request-id"] != given
    assert server.received[0].headers["x-request-id"] == first.headers["x-request-id"]


@pytest.mark.parametrize(
    ("value", "passed"), [(b"a b", False), (b"\xc3\xa9", False), (b"x" * 257, False), (b"a-1", True)]
)
def test_a_session_that_serve_would_fail_over_is_not_passed_on(
    server_and_gateway: Both, value: bytes, passed: bool
) -> None:
    server, running = server_and_gateway
    first, _ = answers(running, whole(running, CHAT, b"x-session-id: " + value) + last(running))
    assert first.status == 200
    assert ("x-session-id" in server.received[0].headers) == passed


def test_bytes_beyond_ascii_in_a_header_reach_the_upstream_as_they_are(server_and_gateway: Both) -> None:
    server, running = server_and_gateway
    first, _ = answers(running, whole(running, CHAT, b"x-title: \xff\xc3\xa9") + last(running))
    assert first.status == 200
    assert server.received[0].headers["x-title"] == "\xff\xc3\xa9"


@pytest.mark.parametrize("line", ["x-llm-internal: guess", "x_llm_internal: " + INTERNAL_TOKEN, "x-llm-tenant: other"])
def test_a_header_of_ours_from_a_client_makes_it_nobody_else(server_and_gateway: Both, line: str) -> None:
    server, running = server_and_gateway
    first, _ = answers(running, whole(running, CHAT, line) + last(running))
    assert first.status == 200
    assert server.received[0].headers["x-llm-tenant"] == "acme"
    assert "x_llm_internal" not in server.received[0].headers


@pytest.mark.parametrize(
    "key", [b"Bearer \xff\xfe", b"Bearer " + b"x" * 4000, b"Bearer sk-acme-\x7f", b"", b"Bearer", b"Basic Og=="]
)
def test_a_key_that_is_none_is_401(server_and_gateway: Both, key: bytes) -> None:
    server, running = server_and_gateway
    data = whole(running, CHAT, "connection: close")
    data = data.replace(f"Bearer {running.key}".encode(), key)
    replies = answers(running, data)
    assert [reply.status for reply in replies] in ([401], [400])  # 400 where HTTP itself forbids the byte
    assert server.received == []
    if replies[0].status == 401:
        assert code_of(replies[0]) == "invalid_api_key"


# The flow of issue 5 in ingress.py


@pytest.mark.parametrize("name", ["authorization", "content-type", "host", "x-request-id", "x-session-id"])
def test_a_header_that_decides_something_is_refused_if_it_comes_twice(server_and_gateway: Both, name: str) -> None:
    server, running = server_and_gateway
    twice = [f"{name}: a"] * (1 if name in ("authorization", "content-type", "host") else 2)
    first, second = answers(running, whole(running, CHAT, *twice) + last(running))
    assert (first.status, second.status) == (400, 200)
    assert code_of(first) == "duplicate_header"
    assert server.received == []


def test_headers_over_the_limit_are_431(server_and_gateway: Both) -> None:
    server, running = server_and_gateway
    first, second = answers(running, whole(running, CHAT, "x-a: " + "a" * 17_000) + last(running))
    assert (first.status, second.status) == (431, 200)
    assert code_of(first) == "headers_too_large"
    assert server.received == []


def test_a_body_that_does_not_come_is_408_and_the_connection_closed(
    upstream: StartUpstream, gateway: StartGateway
) -> None:
    server, url = upstream(ok)
    running = gateway(chat_at(url), bodyTimeoutS=0.2)
    (reply,) = answers(running, head(running, "content-length: 17") + CHAT[:5])
    assert (reply.status, code_of(reply)) == (408, "request_timeout")
    assert reply.headers["connection"] == "close"
    assert server.received == []


def test_a_body_too_large_to_be_read_closes_the_connection(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok)
    running = gateway(chat_at(url), maxRequestBytes=1024)
    (reply,) = answers(running, head(running, "content-length: 1000000") + b"x" * 500)
    assert (reply.status, code_of(reply)) == (413, "body_too_large")
    assert reply.headers["connection"] == "close"
    assert server.received == []


def test_a_refusal_after_the_body_keeps_the_connection(server_and_gateway: Both) -> None:
    _, running = server_and_gateway
    first, second = answers(running, whole(running, b'{"model": "nope"}') + last(running))
    assert (first.status, second.status) == (404, 200)
    assert "connection" not in first.headers


def test_a_compressed_body_is_415(server_and_gateway: Both) -> None:
    server, running = server_and_gateway
    first, _ = answers(running, whole(running, b"\x1f\x8b", "content-encoding: gzip") + last(running))
    assert (first.status, code_of(first)) == (415, "unsupported_content_encoding")
    assert server.received == []
