"""The tools of an MCP server as functions. Each call has a session of its own: a replica keeps no connection open."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import orjson
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

from serve_apps.agent import egress
from serve_apps.agent.config import Mcp
from serve_apps.agent.http_tools import credential_headers
from serve_apps.agent.schemas import inlined
from serve_apps.agent.tools import Arguments, Function, Result, ToolFailed
from serve_apps.common.gateway_client import Caller
from serve_apps.common.secrets import UpstreamKeys


async def mcp_functions(tool: str, mcp: Mcp, keys: UpstreamKeys) -> list[Function]:
    """The functions of an MCP server.

    Raises:
        ToolFailed: it cannot be reached, or does not have a tool that the values name.
    """
    async with _session(mcp, keys) as session:
        listed = (await session.list_tools()).tools
    if missing := sorted(set(mcp.tools) - {each.name for each in listed}):
        raise ToolFailed(f"the server has no tool {', '.join(missing)}")

    def function(name: str, description: str | None, parameters: dict[str, Any]) -> Function:
        async def call(arguments: Arguments, _: Caller) -> Result:
            return Result(await _called(name, arguments, mcp, keys))

        return Function(_function_name(tool, name), tool, description or name, parameters, call, mcp.timeout_s)

    return [
        function(each.name, each.description, inlined(each.input_schema, each.input_schema))
        for each in listed
        if not mcp.tools or each.name in mcp.tools
    ]


def _function_name(tool: str, name: str) -> str:
    """MCP allows signs in names that OpenAI's API does not."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"{tool}_{name}")[:64]


async def _called(name: str, arguments: Arguments, mcp: Mcp, keys: UpstreamKeys) -> str:
    async with _session(mcp, keys) as session:
        result = await session.call_tool(name, arguments)
    texts = [part.text for part in result.content if isinstance(part, TextContent)]
    if not texts and result.structured_content is not None:
        texts = [orjson.dumps(result.structured_content).decode()]
    text = "\n".join(texts) or "(no text)"
    if result.is_error:
        raise ToolFailed(text)
    return text


@asynccontextmanager
async def _session(mcp: Mcp, keys: UpstreamKeys) -> AsyncIterator[Client]:
    headers = credential_headers(mcp, keys)
    try:
        async with (
            egress.client(mcp.allowed_networks, mcp.max_response_bytes, mcp.timeout_s, headers) as http,
            Client(streamable_http_client(mcp.url, http_client=http)) as session,
        ):
            yield session
    except (MCPError, httpx2.HTTPError) as error:
        raise ToolFailed(str(error) or "the MCP server cannot be reached") from error
    except BaseExceptionGroup as group:
        # The client works in a task group, which wraps what broke it.
        expected, unexpected = group.split((MCPError, httpx2.HTTPError, ToolFailed))
        if unexpected is not None or expected is None:
            raise
        raise ToolFailed(_first(expected)) from group


def _first(group: BaseExceptionGroup[BaseException]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or "the MCP server cannot be reached"
