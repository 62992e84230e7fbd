import json

import pytest

from serve_apps.gateway.refusals import translated

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
