import pytest

from serve_apps.gateway.headers import RawHeaders, provider_headers, request_id_of, upstream_headers

CHAT = "/v1/chat/completions"


def forwarded(headers: RawHeaders, aborts_itself: bool = True) -> dict[str, str]:
    return upstream_headers(headers, credential="secret", tenant="acme", request_id="r1", aborts_itself=aborts_itself)


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
        "x-api-key",
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


THEIRS: RawHeaders = [
    (b"authorization", b"Bearer sk-ours"),
    (b"x-api-key", b"sk-ours"),
    (b"content-type", b"application/json"),
    (b"anthropic-version", b"2023-06-01"),
    (b"x-llm-internal", b"guess"),
    (b"x-session-id", b"s"),
    (b"cookie", b"c"),
]


def test_a_provider_gets_its_key_and_nothing_of_ours() -> None:
    passed = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    assert provider_headers(THEIRS, key="sk-theirs", path=CHAT) == passed | {"authorization": "Bearer sk-theirs"}
    assert provider_headers(THEIRS, key="", path=CHAT) == passed


def test_a_provider_of_anthropics_api_gets_its_key_there_too() -> None:
    headers = provider_headers(THEIRS, key="sk-theirs", path="/v1/messages")
    assert (headers["x-api-key"], headers["authorization"]) == ("sk-theirs", "Bearer sk-theirs")
