import asyncio

import pytest
from starlette.requests import Request

from serve_apps.common.errors import InvalidRequest
from serve_apps.common.middleware import Message
from serve_apps.common.requests import json_object


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
