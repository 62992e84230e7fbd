import json
from typing import Any

import pytest
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.utils.api_utils import get_max_tokens
from vllm.exceptions import VLLMValidationError
from vllm.renderers.params import TokenizeParams

from serve_apps.common.errors import InvalidRequest, RateLimited, ServingError, Unavailable
from serve_apps.gateway.refusals import begun_with, encoded, event, is_context_overflow, passed, translated

TRACEBACK = "Traceback (most recent call last):\n  File \"/app/engine.py\", line 7, in step\nKeyError: 'secret'"


def openai_error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "x", "param": None, "code": 400}}).encode()


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503])
def test_an_error_in_openais_shape_passes_as_it_is(status: int) -> None:
    assert translated("chat", status, None, openai_error("max_tokens must be at least 1, got 0.")) is None


@pytest.mark.parametrize(
    "message",
    [
        TRACEBACK,
        "ray::ServeReplica died",
        "RayTaskError(KeyError)",
        "error at server.py:341",
        "<vllm.Engine object at 0x7f00aa>",
    ],
)
@pytest.mark.parametrize(("status", "becomes"), [(400, 400), (500, 502)])
def test_an_error_that_tells_of_our_inside_is_replaced(message: str, status: int, becomes: int) -> None:
    error = translated("chat", status, None, openai_error(message))
    assert error is not None
    assert error.status == becomes
    assert message not in error.message


@pytest.mark.parametrize("status", [429, 503])
def test_serves_plain_refusal_becomes_429(status: int) -> None:
    error = translated("chat", status, "3", b"Request dropped due to backpressure")
    assert error is not None
    assert (error.status, error.retry_after_s, error.code) == (429, 3, "model_overloaded")


def test_a_refusal_without_a_time_gets_one() -> None:
    error = translated("chat", 429, None, b"Request dropped due to backpressure")
    assert error is not None
    assert error.retry_after_s == 1


def test_a_503_that_is_no_refusal_stays_one() -> None:
    error = translated("chat", 503, None, b"no replica")
    assert error is not None
    assert (error.status, error.retry_after_s) == (503, 1)


def test_serves_404_for_an_application_that_is_not_there_is_no_404_of_the_model() -> None:
    error = translated("chat", 404, None, b"Path '/internal/chat/v1/completions' not found. Ping /-/routes")
    assert error is not None
    assert (error.status, error.code) == (503, "model_unavailable")
    assert "/internal" not in error.message


@pytest.mark.parametrize(
    "body", [TRACEBACK.encode(), b"", b"<html>", b"\xff", b'{"detail": "x"}', b"[]", b'{"error": 1}']
)
def test_any_other_500_becomes_502_without_its_text(body: bytes) -> None:
    error = translated("chat", 500, None, body)
    assert error is not None
    assert error.status == 502
    assert error.message == 'The model "chat" failed (status 500).'


@pytest.mark.parametrize(
    ("status", "becomes"),
    [(302, 502), (401, 502), (403, 400), (408, 504), (413, 413), (422, 400), (502, 502), (504, 504)],
)
def test_a_status_without_a_shape_becomes_ours(status: int, becomes: int) -> None:
    error = translated("chat", status, None, b"some text")
    assert error is not None
    assert error.status == becomes
    assert "some text" not in error.message


def test_a_refused_gateway_is_not_the_clients_fault() -> None:
    error = translated("chat", 401, None, openai_error("Unauthorized"))
    assert error is not None
    assert error.status == 502


def test_a_detail_in_words_is_kept() -> None:
    error = translated("chat", 400, None, b'{"detail": "Field required: input"}')
    assert error is not None
    assert (error.status, error.message) == (400, "Field required: input")


def test_a_detail_that_tells_of_our_inside_is_not() -> None:
    error = translated("chat", 400, None, json.dumps({"detail": TRACEBACK}).encode())
    assert error is not None
    assert "secret" not in error.message


# What upstreams call a prompt that is too long


def vllm_refuses(call: Any) -> bytes:
    """The body vLLM answers with when ``call`` raises."""
    with pytest.raises((VLLMValidationError, ValueError)) as caught:
        call()
    body: str = create_error_response(caught.value).model_dump_json()
    return body.encode()


def params(total: int, output: int) -> TokenizeParams:
    return TokenizeParams(
        max_total_tokens=total,
        max_output_tokens=output,
        max_total_tokens_param="max_model_len",
        max_output_tokens_param="max_tokens",
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: params(10, 2)._token_len_check(None, [1] * 9),
        lambda: params(10, 20),
        lambda: get_max_tokens(10, None, 11, {}),
    ],
    ids=["prompt-and-answer", "answer-alone", "prompt-alone"],
)
def test_vllms_own_words_for_a_prompt_too_long_are_known(call: Any) -> None:
    assert is_context_overflow(400, vllm_refuses(call))


@pytest.mark.parametrize(
    "message",
    [
        "The decoder prompt (length 12) is longer than the maximum model length of 10. Make sure that",
        "The decoder prompt (length 10) plus the number of requested output tokens (at least 1) is longer than the "
        "maximum model length of 10.",
        "The engine prompt length 12 exceeds the max_model_len 10. Please reduce prompt.",
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
        "prompt is too long: 210000 tokens > 200000 maximum",
    ],
)
def test_so_are_those_of_its_other_stages_and_of_providers(message: str) -> None:
    assert is_context_overflow(400, openai_error(message))


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (b'data: {"error": {"message": "m", "code": 500}}\n\n', 502),
        (b'data: {"error":{"message":"m","code":429}}\r\n\r\ndata: [DONE]\r\n\r\n', 429),
        (b'data: {"error": {"message": "m", "code": 400}}\n\n', None),
        (b'data: {"error": {"message": "m", "code": "upstream_failed"}}\n\n', None),
        (b'data: {"error": {"mess', None),
        (b'data: {"choices": []}\n\ndata: {"error": {"message": "m", "code": 500}}\n\n', None),
    ],
)
def test_a_failure_that_a_stream_begins_with_is_known(event: bytes, status: int | None) -> None:
    error = begun_with("chat", event)
    assert (error and error.status) == status


def test_so_is_openais_code() -> None:
    assert is_context_overflow(400, b'{"error": {"message": "no", "code": "context_length_exceeded"}}')


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, openai_error("temperature must be non-negative, got -1.0.")),
        (500, openai_error("maximum context length")),
        (400, b"maximum context length"),
        (400, b'{"error": "maximum context length"}'),
        (400, b'{"error": {"message": 5}}'),
    ],
)
def test_no_other_refusal_is_taken_for_one(status: int, body: bytes) -> None:
    assert not is_context_overflow(status, body)


# Dialects

MESSAGES = "/v1/messages"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("no"), "invalid_request_error"),
        (RateLimited("no", retry_after_s=1), "rate_limit_error"),
        (Unavailable("no"), "overloaded_error"),
        (ServingError("no"), "api_error"),
    ],
)
@pytest.mark.parametrize("path", [MESSAGES, "/v1/messages/count_tokens"])
def test_on_anthropics_paths_an_error_is_anthropics(path: str, error: ServingError, kind: str) -> None:
    assert json.loads(encoded(error, path)) == {"type": "error", "error": {"type": kind, "message": "no"}}


def test_everywhere_else_it_is_openais() -> None:
    error = InvalidRequest("no", code="c", param="p")
    body = {"error": {"message": "no", "type": "invalid_request_error", "param": "p", "code": "c"}}
    assert json.loads(encoded(error, "/v1/chat/completions")) == body


def test_in_a_stream_an_error_is_an_event_of_its_own() -> None:
    error = InvalidRequest("no")
    assert event(error, "/v1/completions") == b"\n\ndata: " + error.encoded() + b"\n\n"
    assert event(error, MESSAGES) == b"\n\nevent: error\ndata: " + encoded(error, MESSAGES) + b"\n\n"


@pytest.mark.parametrize(
    "body",
    [openai_error("no"), b'{"type": "error", "error": {"type": "BadRequestError", "message": "no"}}'],
)
def test_an_upstreams_error_is_in_the_callers_dialect(body: bytes) -> None:
    expected = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
    assert json.loads(passed(body, 400, MESSAGES)) == expected
    assert translated("chat", 400, None, body) is None


def test_an_upstreams_error_in_openais_dialect_is_the_very_one() -> None:
    body = openai_error("no")
    assert passed(body, 400, "/v1/chat/completions") is body
    assert passed(b"{}", 400, MESSAGES) == b"{}"
