"""The agent's loop as a graph: decide, act, decide …, answer. LangGraph runs it, and keeps its state where it is told.

START ─▶ decide ─▶ act ─▶ decide …
           └────────┴───▶ answer ─▶ END
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from serve_apps.agent import progress, tools
from serve_apps.agent.calling import Calling, Json, Native
from serve_apps.agent.config import Agent
from serve_apps.agent.observation import Observer
from serve_apps.agent.progress import Ending, Progress, Step
from serve_apps.agent.tools import Call, Function, Outcome
from serve_apps.agent.turn import Turn, take
from serve_apps.common.gateway_client import Caller


class Models(Protocol):
    """What the loop needs of the gateway's client."""

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

    @cached_property
    def calling(self) -> Calling:
        """How the model calls tools."""
        functions = list(self.functions.values())
        return Native(functions) if self.agent.tool_calling == "native" else Json(functions)


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of text for the caller."""

    text: str


@dataclass(frozen=True, slots=True)
class Did:
    """A call of a tool that is done."""

    step: Step


@dataclass(frozen=True, slots=True)
class Ended:
    """The end, and all that came of it."""

    progress: Progress


Event = Said | Did | Ended
Loop = CompiledStateGraph[Progress, Work, Progress, Progress]


def beginning(work: Work, conversation: Sequence[dict[str, Any]], instruction: str) -> Progress:
    """The state of a request that has just come in; ``instruction`` is the caller's own."""
    prompt = work.calling.instruction("\n\n".join(filter(None, [work.agent.system_prompt, instruction])))
    system = [{"role": "system", "content": prompt}] if prompt else []
    return {
        "began_s": time.time(),
        "messages": [*system, *conversation],
        "pending": [],
        "steps": [],
        "done": [],
        "turns": 0,
        "text": "",
        "usage": {},
        "wants_to_answer": False,
        "forced": None,
        "ending": None,
        "finish_reason": None,
    }


def build(saver: BaseCheckpointSaver[int] | None = None) -> Loop:
    """The loop; with a saver, its state is kept after every step."""
    graph = StateGraph(Progress, context_schema=Work)
    graph.add_node("decide", _decide)
    graph.add_node("act", _act)
    graph.add_node("answer", _answer)
    graph.add_conditional_edges(START, _first, ["decide", "answer"])
    graph.add_conditional_edges("decide", _after_decision, ["decide", "act", "answer", END])
    graph.add_conditional_edges("act", _after_action, ["decide", "answer"])
    graph.add_edge("answer", END)
    return graph.compile(checkpointer=saver)


async def run(loop: Loop, work: Work, begin: Progress | None, thread: str | None = None) -> AsyncGenerator[Event, None]:
    """What happens, as it happens; the last event is ``Ended``.

    Args:
        loop: from ``build``.
        work: the request's surroundings.
        begin: from ``beginning``; None goes on where the thread's last checkpoint is.
        thread: the name under which a loop with a saver keeps its state.

    Raises:
        ServingError: the model cannot be reached, refuses or breaks off.
    """
    events: asyncio.Queue[Event | None] = asyncio.Queue()
    # A task of its own, cancelled from outside: within a scope of anyio, which cancels whatever is awaited meanwhile,
    # LangGraph would not come to cancel its nodes, and the model would go on for nobody.
    driving = asyncio.create_task(_drive(loop, work, begin, thread, events))
    driving.add_done_callback(lambda _: events.put_nowait(None))
    try:
        while (event := await events.get()) is not None:
            yield event
        await driving
    finally:
        driving.cancel()
        await asyncio.wait([driving])


async def _drive(
    loop: Loop, work: Work, begin: Progress | None, thread: str | None, events: asyncio.Queue[Event | None]
) -> None:
    # Two nodes a turn at most; the limit of steps ends the work long before.
    config: RunnableConfig = {"recursion_limit": 2 * work.agent.limits.steps + 4}
    if thread is not None:
        config["configurable"] = {"thread_id": thread}
    state: Progress = {}
    told = loop.astream(
        begin,
        config,
        context=work,
        stream_mode=["custom", "values"],
        durability="sync" if thread is not None else None,
    )
    # What nodes write is an event of ours; the rest is the state after each step.
    async for kind, value in told:
        if kind == "custom":
            events.put_nowait(cast(Event, value))
        else:
            state = cast(Progress, value)
    events.put_nowait(Ended(state))


def _first(_: Progress, runtime: Runtime[Work]) -> Literal["decide", "answer"]:
    return "decide" if runtime.context.functions else "answer"


def _after_decision(state: Progress) -> str:
    if state["ending"]:
        return END
    if state["pending"]:
        return "act"
    return "answer" if state["wants_to_answer"] or state["forced"] else "decide"


def _after_action(state: Progress) -> Literal["decide", "answer"]:
    return "answer" if state["forced"] else "decide"


async def _decide(state: Progress, *, runtime: Runtime[Work]) -> dict[str, Any]:
    work = runtime.context
    if progress.is_last_turn(state, work.agent.limits):
        return {"forced": "steps"}
    calling = work.calling
    request = calling.deciding(state["messages"]) | {"temperature": 0}
    turn, over = await _turn(state, runtime, request, speaks=calling.streams)
    if over:
        return _ended(over, turn)
    decided = calling.decision(turn)
    if decided.answered:
        return _ended("answered", turn)
    pending = [
        {"id": call.id, "name": call.name, "arguments": call.arguments, "key": call.key} for call in decided.calls
    ]
    wants = not pending and decided.correction is None
    # A wish to answer is not kept: some chat templates want the user to speak last.
    kept = [] if wants else [decided.message, *([decided.correction] if decided.correction else [])]
    spoken = f"{turn.text}\n\n" if calling.streams and turn.text else ""
    if spoken:
        runtime.stream_writer(Said("\n\n"))
    return {"messages": kept, "pending": pending, "wants_to_answer": wants, "text": spoken, **_counted(turn)}


async def _act(state: Progress, *, runtime: Runtime[Work]) -> dict[str, Any]:
    work = runtime.context
    limits = work.agent.limits
    calls = [Call(each["id"], each["name"], each["arguments"]) for each in state["pending"]]
    if forced := progress.must_answer(state, limits):
        refused = ["Error: not called, the limit is reached. Answer from what is known."] * len(calls)
        return {"messages": work.calling.results(calls, refused), "pending": [], "forced": forced}
    left_s = state["began_s"] + limits.wall_time_s - time.time()
    outcomes = await asyncio.gather(*(_performed(call, work, left_s) for call in calls))
    steps: list[Step] = []
    usage: dict[str, int] = {}
    for call, outcome in zip(calls, outcomes, strict=True):
        step = Step(
            tool=call.name,
            arguments=call.arguments,
            result=outcome.text,
            failed=outcome.failed,
            duration_s=round(outcome.duration_s, 3),
        )
        steps.append(step)
        usage = progress.plus(usage, outcome.usage)
        runtime.stream_writer(Did(step))
    return {
        "messages": work.calling.results(calls, [outcome.text for outcome in outcomes]),
        "pending": [],
        "steps": steps,
        "done": [call.key for call in calls],
        "usage": usage,
    }


async def _performed(call: Call, work: Work, left_s: float) -> Outcome:
    function = work.functions.get(call.name)
    outcome = await tools.perform(
        function, call, list(work.functions), work.caller, left_s, work.agent.limits.tool_result_chars
    )
    if function is not None:
        work.observer.called(work.name, function.tool, failed=outcome.failed, duration_s=outcome.duration_s)
    return outcome


async def _answer(state: Progress, *, runtime: Runtime[Work]) -> dict[str, Any]:
    work = runtime.context
    sampling = {"temperature": work.agent.temperature, **work.sampling}
    turn, over = await _turn(state, runtime, work.calling.answering(state["messages"]) | sampling, speaks=True)
    return _ended(over or state["forced"] or "answered", turn)


async def _turn(
    state: Progress, runtime: Runtime[Work], request: dict[str, Any], *, speaks: bool
) -> tuple[Turn, Ending | None]:
    """One turn of the model, and the limit that cut it short; its text goes to the caller if it ``speaks``."""
    work, turn = runtime.context, Turn()
    limits = work.agent.limits
    if over := progress.exhausted(state, limits, time.time()):
        return turn, over
    most = min(int(work.sampling.get("max_tokens", work.agent.max_tokens)), progress.tokens_left(state, limits))
    asked = {
        **request,
        "model": work.agent.model,
        "max_tokens": most,
        "stream_options": {"include_usage": True},
    }

    def say(text: str) -> None:
        if speaks:
            runtime.stream_writer(Said(text))

    began = time.monotonic()
    try:
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


def _ended(ending: Ending, turn: Turn) -> dict[str, Any]:
    return {"ending": ending, "finish_reason": turn.finish_reason, "text": turn.text, **_counted(turn)}


def _counted(turn: Turn) -> dict[str, Any]:
    return {"turns": 1, "usage": turn.usage}
