import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer

from serve_apps.agent.config import Mcp
from serve_apps.agent.mcp_tools import mcp_functions
from serve_apps.agent.tools import ToolFailed
from serve_apps.common.middleware import ASGIApp, Receive, Scope, Send
from serve_apps.common.secrets import UpstreamKeys
from tests.serve_apps.agent.conftest import CALLER, LOOPBACK
from tests.serve_apps.gateway.servers import serving


class Listening:
    """An ASGI app that notes the credentials it is shown."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.shown: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.shown += [value.decode() for name, value in scope.get("headers", []) if name == b"authorization"]
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Listening]]:
    """A real MCP server with three tools, and the headers it saw."""
    mcp = MCPServer("tickets")

    @mcp.tool()
    def read(number: int) -> str:
        """The text of a ticket."""
        return f"Ticket {number}: the printer is on fire."

    @mcp.tool(name="count.open")
    def count() -> int:
        """How many are open."""
        return 3

    @mcp.tool()
    def close(number: int) -> str:
        """Closes a ticket."""
        raise ValueError(number)

    app = Listening(mcp.streamable_http_app())
    with serving(app, lifespan="on") as url:
        yield f"{url}/mcp", app


def functions(url: str, keys: UpstreamKeys, **more: Any) -> dict[str, Any]:
    mcp = Mcp.model_validate({"url": url, **LOOPBACK, **more})
    return {each.name: each for each in asyncio.run(mcp_functions("tickets", mcp, keys))}


def test_a_servers_tools_are_functions(server: tuple[str, Listening], keys: UpstreamKeys) -> None:
    found = functions(server[0], keys, tools=["read"])
    assert list(found) == ["tickets_read"]
    read = found["tickets_read"]
    assert (read.tool, read.description) == ("tickets", "The text of a ticket.")
    assert read.parameters["properties"]["number"]["type"] == "integer"
    assert asyncio.run(read.call({"number": 7}, CALLER)).text == "Ticket 7: the printer is on fire."


def test_a_name_that_is_none_to_models_is_respelt(server: tuple[str, Listening], keys: UpstreamKeys) -> None:
    found = functions(server[0], keys, tools=["count.open"])
    assert asyncio.run(found["tickets_count_open"].call({}, CALLER)).text == "3"


def test_a_tool_that_fails_is_told(server: tuple[str, Listening], keys: UpstreamKeys) -> None:
    with pytest.raises(ToolFailed, match="Error executing tool close"):
        asyncio.run(functions(server[0], keys)["tickets_close"].call({"number": 7}, CALLER))


def test_the_server_is_shown_its_credential(server: tuple[str, Listening], keys: UpstreamKeys) -> None:
    server[1].shown.clear()
    functions(server[0], keys, credential="weather")
    assert set(server[1].shown) == {"Bearer weather-key"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"tools": ["delete"]}, "the server has no tool delete"),
        ({"maxResponseBytes": 50}, "the answer is larger than 50 bytes"),
        ({"allowedNetworks": []}, "127.0.0.1 is not a public host; tools may not reach it"),
        ({"url": "http://127.0.0.1:1/mcp"}, "All connection attempts failed"),
    ],
)
def test_a_server_that_cannot_be_used_says_why(
    server: tuple[str, Listening], keys: UpstreamKeys, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ToolFailed) as caught:
        functions(**{"url": server[0], "keys": keys, **more})
    assert str(caught.value) == message
