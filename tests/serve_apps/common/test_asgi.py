import asyncio
import json

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from serve_apps.common import asgi


async def echo(request: Request) -> Response:
    """What it was asked, unless the client has left."""
    body = await request.json()
    gone = await request.is_disconnected()
    return JSONResponse({"body": body, "header": request.headers["x-one"], "gone": gone}, status_code=201)


async def pieces(_: Request) -> Response:
    return StreamingResponse(iter([b"one ", b"two"]))


APP = Starlette(routes=[Route("/echo", echo, methods=["POST"]), Route("/pieces", pieces, methods=["POST"])])


def test_an_app_is_asked_and_its_whole_answer_comes_back() -> None:
    status, content = asyncio.run(asgi.post(APP, "/echo", b'{"a": "\xc3\xa4"}', {"X-One": "1"}))
    assert (status, json.loads(content)) == (201, {"body": {"a": "ä"}, "header": "1", "gone": False})


@pytest.mark.parametrize(("path", "expected"), [("/pieces", (200, b"one two")), ("/nowhere", (404, b"Not Found"))])
def test_pieces_are_put_together_and_refusals_are_answers(path: str, expected: tuple[int, bytes]) -> None:
    assert asyncio.run(asgi.post(APP, path, b"", {})) == expected
