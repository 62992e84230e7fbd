import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from serve_apps.common import responses
from serve_apps.common.errors import RateLimited


async def respond(request: Request) -> Response:
    match request.path_params["what"]:
        case "busy":
            raise RateLimited("Come back.", code="busy", retry_after_s=7)
        case "broken":
            raise KeyError("secret")
        case _:
            return responses.json({"well": True}, 202, {"x-more": "1"})


def asked(path: str, method: str = "GET") -> httpx.Response:
    """A Starlette application, at ``/app`` as well, as an application of Serve is below its route prefix."""
    inner = Starlette(routes=[Route("/{what}", respond)], exception_handlers=responses.HANDLERS)
    app = Starlette(routes=[Mount("/app", inner), Mount("/", inner)])

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.request(method, path)

    return asyncio.run(ask())


def test_an_answer_is_json_with_its_status_and_headers() -> None:
    response = asked("/fine")
    assert (response.status_code, response.json(), response.headers["x-more"]) == (202, {"well": True}, "1")


@pytest.mark.parametrize(
    ("path", "method", "status", "code"),
    [
        ("/busy", "GET", 429, "busy"),
        ("/no/such", "GET", 404, "unknown_path"),
        ("/fine", "POST", 405, "method_not_allowed"),
        ("/broken", "GET", 500, None),
    ],
)
def test_every_refusal_has_openais_shape(path: str, method: str, status: int, code: str | None) -> None:
    response = asked(path, method)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert "secret" not in response.text


@pytest.mark.parametrize("prefix", ["", "/app"])
def test_a_refusal_names_the_path_as_clients_know_it(prefix: str) -> None:
    assert asked(f"{prefix}/no/such").json()["error"]["message"] == "No such path: GET /no/such"
    assert asked(f"{prefix}/fine", "PUT").json()["error"]["message"] == "/fine does not answer PUT"


def test_what_belongs_to_a_refusal_is_in_its_headers() -> None:
    assert asked("/busy").headers["retry-after"] == "7"
    assert asked("/fine", "POST").headers["allow"] == "GET, HEAD"


def test_a_stream_closes_what_makes_its_events() -> None:
    closed = []

    async def events() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"data: on\n\n"
        finally:
            closed.append(True)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise OSError("the client has gone")

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def serve() -> None:
        scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
        await responses.EventStream(events())(scope, receive, send)

    with pytest.raises(BaseException, match=r"gone|unhandled"):
        asyncio.run(serve())
    assert closed == [True]


async def pieces(closed: list[str], *, fails: bool = False) -> AsyncGenerator[bytes, None]:
    """A stream's source, which tells of its end."""
    try:
        if fails:
            raise RateLimited("Come back.", code="busy")
        yield b"data: 1\n\n"
        yield b"data: 2\n\n"
    finally:
        closed.append("source")


def test_a_stream_is_whole_and_closes_its_source() -> None:
    closed: list[str] = []

    async def stream(_: Request) -> Response:
        source = pieces(closed)
        return await responses.streamed((piece async for piece in source), source, {"x-more": "1"})

    app = Starlette(routes=[Route("/", stream)], exception_handlers=responses.HANDLERS)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            return await client.get("/")

    response = asyncio.run(ask())
    assert (response.text, response.headers["x-more"]) == ("data: 1\n\ndata: 2\n\n", "1")
    assert closed == ["source"]


def test_what_fails_before_the_first_event_has_a_status_of_its_own() -> None:
    closed: list[str] = []

    async def begin() -> None:
        source = pieces(closed, fails=True)
        await responses.streamed((piece async for piece in source), source, {})

    with pytest.raises(RateLimited):
        asyncio.run(begin())
    assert closed == ["source"]
