import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from serve_apps.common.errors import InvalidRequest
from serve_apps.common.middleware import Message
from serve_apps.common.requests import answer_bounds, json_object


def with_body(body: bytes) -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


def test_an_object_is_read() -> None:
    assert asyncio.run(json_object(with_body(b'{"a": 1}'))) == {"a": 1}


@pytest.mark.parametrize(
    ("body", "problem"),
    [(b"", "not JSON"), (b'{"a":', "not JSON"), (b"[]", "must be a JSON object"), (b"1", "must be a JSON object")],
)
def test_anything_else_is_refused(body: bytes, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem) as refused:
        asyncio.run(json_object(with_body(body)))
    assert refused.value.code == "invalid_json"


@pytest.mark.parametrize(
    ("body", "bounds"),
    [
        ({}, {}),
        ({"max_tokens": None}, {}),
        ({"max_tokens": 10}, {"max_tokens": 10}),
        ({"max_completion_tokens": 500}, {"max_completion_tokens": 100}),
        ({"max_tokens": 10, "max_completion_tokens": 20}, {"max_tokens": 10, "max_completion_tokens": 20}),
    ],
)
def test_an_answers_bounds_keep_their_names_and_are_bounded(body: dict[str, Any], bounds: dict[str, int]) -> None:
    assert answer_bounds(body, 100) == bounds


@pytest.mark.parametrize("asked", [0, -1, 1.5, "9", True])
def test_what_is_no_bound_of_an_answer_is_refused(asked: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"max_tokens: must be a whole number from 1, got {asked!r}"):
        answer_bounds({"max_tokens": asked}, 100)
