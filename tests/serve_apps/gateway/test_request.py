import asyncio
from collections.abc import Iterator

import pytest

from serve_apps.common.errors import InvalidRequest, TooLarge
from serve_apps.common.middleware import Message, Receive
from serve_apps.gateway.request import (
    Disconnected,
    RawHeaders,
    parse,
    read_body,
    request_id_of,
    upstream_headers,
)


def receiving(*messages: Message) -> Receive:
    """An ASGI ``receive`` that gives ``messages`` one after the other."""
    left: Iterator[Message] = iter(messages)

    async def receive() -> Message:
        return next(left)

    return receive


def part(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def forwarded(headers: RawHeaders, aborts_itself: bool = True) -> dict[str, str]:
    return upstream_headers(headers, credential="secret", tenant="acme", request_id="r1", aborts_itself=aborts_itself)


def test_model_and_stream_are_read() -> None:
    assert parse(b'{"model": "chat", "stream": true, "messages": []}') == ("chat", True)


@pytest.mark.parametrize("body", [b"{}", b'{"stream": "true"}', b'{"stream": 1}'])
def test_a_body_without_them_names_no_model_and_does_not_stream(body: bytes) -> None:
    assert parse(body) == (None, False)


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"model": "chat"', b'{"model": "\xff"}', b'{"a": NaN}', b"[" * 5000, b"\x1f\x8b\x08\x00"]
)
def test_a_body_that_is_not_json_in_utf8_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="is not JSON in UTF-8"):
        parse(body)


@pytest.mark.parametrize("body", [b"[]", b'"chat"', b"null", b"1"])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="must be a JSON object"):
        parse(body)


def test_a_body_in_parts_is_put_together() -> None:
    receive = receiving(part(b"ab", more=True), part(b"", more=True), part(b"cd"))
    assert asyncio.run(read_body(receive, [], 4)) == b"abcd"


def test_a_body_over_the_limit_is_refused_as_soon_as_it_is() -> None:
    receive = receiving(part(b"abc", more=True), part(b"de", more=True))
    with pytest.raises(TooLarge, match="larger than the 4 bytes"):
        asyncio.run(read_body(receive, [], 4))


def test_a_body_that_says_it_is_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(TooLarge):
        asyncio.run(read_body(receiving(), [(b"content-length", b"5")], 4))


def test_a_client_that_leaves_while_sending_is_noticed() -> None:
    receive = receiving(part(b"ab", more=True), {"type": "http.disconnect"})
    with pytest.raises(Disconnected):
        asyncio.run(read_body(receive, [], 4))


@pytest.mark.parametrize("given", [b"abc-123", b"00.1:2_3", b"x" * 128])
def test_a_sane_request_id_is_kept(given: bytes) -> None:
    assert request_id_of([(b"x-request-id", given)]) == given.decode()


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a\nb", b'a"b', "é".encode()])
def test_any_other_request_id_is_replaced(given: bytes) -> None:
    made = request_id_of([(b"x-request-id", given)])
    assert made.encode() != given
    assert len(made) == 32


def test_two_requests_without_an_id_get_different_ones() -> None:
    assert request_id_of([]) != request_id_of([])


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "cookie",
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "accept-encoding",
        "x-request-timeout-seconds",
        "X_Request_Timeout_Seconds",
        "serve_multiplexed_model_id",
        "serve-multiplexed-model-id",
        "x-llm-anything",
        "X-LLM_anything",
    ],
)
def test_a_header_that_is_not_the_clients_to_set_is_dropped(name: str) -> None:
    assert name.lower() not in {key.lower() for key in forwarded([(name.encode(), b"1")])}


@pytest.mark.parametrize("name", ["content-type", "accept", "traceparent", "x-stainless-lang", "openai-organization"])
def test_a_header_that_is_the_clients_goes_upstream(name: str) -> None:
    assert forwarded([(name.encode(), b"1")])[name] == "1"


def test_a_header_named_by_connection_is_dropped() -> None:
    assert "x-hop" not in forwarded([(b"connection", b"close, X-Hop"), (b"x-hop", b"1")])


def test_the_gateway_speaks_for_itself_whatever_the_client_says() -> None:
    headers: RawHeaders = [
        (b"x-llm-internal", b"guess"),
        (b"x-llm-tenant", b"somebody"),
        (b"x-request-id", b"theirs"),
        (b"x-request-disconnect-disabled", b"?0"),
    ]
    assert forwarded(headers) == {
        "x-llm-internal": "secret",
        "x-llm-tenant": "acme",
        "x-request-id": "r1",
        "x-request-disconnect-disabled": "?1",
    }


def test_a_model_is_left_to_see_the_disconnect_itself() -> None:
    assert forwarded([], aborts_itself=True)["x-request-disconnect-disabled"] == "?1"


def test_a_pipeline_is_left_to_serve_which_cancels_it() -> None:
    assert "x-request-disconnect-disabled" not in forwarded([], aborts_itself=False)
