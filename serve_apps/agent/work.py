"""What every node of an agent's work has and does: its surroundings, a turn of a model, a call of a tool."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from langgraph.runtime import Runtime

from serve_apps.agent import progress, tools
from serve_apps.agent.calling import DATA, Calling, Json, Native
from serve_apps.agent.config import Agent
from serve_apps.agent.observation import Observer
from serve_apps.agent.progress import Ending, Progress, Step
from serve_apps.agent.tools import Call, Function, Outcome
from serve_apps.agent.turn import Turn, take
from serve_apps.common import tracing
from serve_apps.common.gateway_client import Caller
from serve_apps.common.prices import Price, cost


class Models(Protocol):
    """What the nodes need of the gateway's client."""

    def stream_chat(self, request: dict[str, Any], caller: Caller) -> AsyncGenerator[bytes, None]:
        """The payloads of a streamed chat completion, as they come."""


@dataclass(frozen=True)
class Work:
    """A request's surroundings: what the nodes use and no checkpoint holds."""

    name: str
    agent: Agent
    functions: Mapping[str, Function]
    models: Models
    caller: Caller
    observer: Observer
    sampling: Mapping[str, Any]
    """The request's own fields for the model's answers."""
    prices: Mapping[str, Price]
    """What tokens cost, by who is asked."""

    @cached_property
    def calling(self) -> Calling:
        """How the model calls tools."""
        functions = list(self.functions.values())
        return Native(functions) if self.agent.tool_calling == "native" else Json(functions)

    @property
    def answer_tokens(self) -> int:
        """Tokens of the answer at most: the caller's bound, where there is one."""
        return int(self.sampling.get("max_tokens", self.agent.max_tokens))

    def cost(self, asked: str, usage: Mapping[str, int]) -> float:
        """What the tokens cost that ``asked``, a model or a pipeline, reports."""
        counts = progress.plus(usage, {})
        return cost(self.prices.get(asked), counts["prompt_tokens"], counts["completion_tokens"])

    def instruction(self, system_prompt: str) -> str:
        """The system message: with how tools are called, where models call them."""
        if self.agent.graph is None:
            return self.calling.instruction(system_prompt)
        return "\n\n".join(filter(None, [system_prompt, DATA if self.functions else ""]))


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of text for the caller."""

    text: str


@dataclass(frozen=True, slots=True)
class Did:
    """A call of a tool, or a step of a graph, that is done."""

    step: Step


@dataclass(frozen=True, slots=True)
class Ended:
    """The end, and all that came of it."""

    progress: Progress


Event = Said | Did | Ended


async def turn_of(
    state: Progress, runtime: Runtime[Work], request: dict[str, Any], *, speaks: bool
) -> tuple[Turn, Ending | None]:
    """One turn of the model, and the limit that cut it short; its text goes to the caller if it ``speaks``.

    ``request`` may have ``max_tokens``; the agent's own, unless it does, and never more than its limits leave.
    """
    work, turn = runtime.context, Turn()
    limits = work.agent.limits
    if over := progress.exhausted(state, limits, time.time()):
        return turn, over
    asked = {"model": work.agent.model, **request}
    left = progress.tokens_left(state, limits, work.prices.get(asked["model"]))
    asked |= {
        "max_tokens": min(request.get("max_tokens", work.agent.max_tokens), left),
        "stream_options": {"include_usage": True},
    }

    def say(text: str) -> None:
        if speaks:
            runtime.stream_writer(Said(text))

    began = time.monotonic()
    try:
        with tracing.span(f"chat {asked['model']}", {"gen_ai.agent.name": work.name}):
            async with (
                asyncio.timeout(state["began_s"] + limits.wall_time_s - time.time()),
                aclosing(work.models.stream_chat(asked, work.caller)) as payloads,
            ):
                await take(payloads, turn, say)
    except TimeoutError:
        return turn if speaks else Turn(usage=turn.usage), "wall_time"
    finally:
        work.observer.turned(work.name, time.monotonic() - began)
    return turn, None


async def performed(call: Call, work: Work, left_s: float) -> Outcome:
    """How a call of a tool went; ``left_s`` is what remains of the request's time."""
    function = work.functions.get(call.name)
    name = function.name if function else "unknown"
    with tracing.span(f"execute_tool {name}", {"gen_ai.agent.name": work.name, "gen_ai.tool.name": name}) as span:
        outcome = await tools.perform(
            function, call, list(work.functions), work.caller, left_s, work.agent.limits.tool_result_chars
        )
        if span and outcome.failed:
            span.fail("tool_failed")
    if function is not None:
        work.observer.called(work.name, function.tool, failed=outcome.failed, duration_s=outcome.duration_s)
        outcome = replace(outcome, cost=work.cost(function.asks, outcome.usage))
    return outcome
