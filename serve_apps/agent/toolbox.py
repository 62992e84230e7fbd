"""An agent's tools: those of the values at once, those that servers list once they were asked."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from serve_apps.agent.config import Agent, Tool
from serve_apps.agent.http_tools import http_functions
from serve_apps.agent.mcp_tools import mcp_functions
from serve_apps.agent.tools import Asks, Function, ToolFailed, calculator_function, rag_function
from serve_apps.common.secrets import UpstreamKeys

#: How long what a server listed is good for, in seconds, and how long after a failure it is asked again.
FRESH_S = 300.0
RETRY_S = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listed:
    """What there is now."""

    functions: dict[str, Function]
    """By name."""
    missing: tuple[str, ...] = ()
    """Tools whose server does not say what it has; the agent does without them."""


class Toolbox:
    """The tools of one agent."""

    def __init__(
        self, agent: Agent, gateway: Asks, keys: UpstreamKeys, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tools = agent.tools
        self._gateway = gateway
        self._keys = keys
        self._clock = clock
        self._listed = Listed({})
        self._good_until = float("-inf")
        self._turn = asyncio.Lock()

    async def functions(self) -> Listed:
        """What the model may call; servers are asked at most every few minutes."""
        async with self._turn:
            if self._clock() >= self._good_until:
                found = await asyncio.gather(*(self._functions(name, tool) for name, tool in self._tools.items()))
                functions = {each.name: each for some in found for each in some or [] if self._may_have(each)}
                missing = tuple(name for name, some in zip(self._tools, found, strict=True) if some is None)
                self._listed = Listed(functions, missing)
                self._good_until = self._clock() + (RETRY_S if missing else FRESH_S)
        return self._listed

    def _may_have(self, function: Function) -> bool:
        """Whether its name is its tool's own: ``a`` must not pose as ``a_b`` by listing a function ``b_c``."""
        name = function.name
        owner = max((tool for tool in self._tools if name == tool or name.startswith(f"{tool}_")), key=len, default="")
        if owner != function.tool:
            logger.error("a function is left out", extra={"tool": function.tool, "problem": f"{name} is {owner}'s"})
        return owner == function.tool

    async def _functions(self, name: str, tool: Tool) -> list[Function] | None:
        if tool.calculator is not None:
            return [calculator_function(name, tool)]
        if tool.rag is not None:
            return [rag_function(name, tool, tool.rag.pipeline, tool.rag.top_k, self._gateway)]
        remote = tool.http or tool.mcp
        try:
            async with asyncio.timeout(remote.timeout_s if remote else None):
                if tool.http is not None:
                    return await http_functions(name, tool.http, self._keys)
                if tool.mcp is not None:
                    return await mcp_functions(name, tool.mcp, self._keys)
        except (ToolFailed, TimeoutError) as error:
            logger.error("a tool is missing", extra={"tool": name, "problem": str(error) or "no answer in time"})
        return None
