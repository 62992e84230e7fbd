"""An agent's work as LangGraph runs it, and what it tells meanwhile."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph

from serve_apps.agent.progress import Progress
from serve_apps.agent.work import Ended, Event, Work
from serve_apps.common.errors import ServingError


@dataclass(frozen=True, slots=True)
class Flow:
    """The nodes of an agent's work, and how they follow each other."""

    graph: CompiledStateGraph[Progress, Work, Progress, Progress]
    most_steps: int
    """More than it ever takes; its own limits end it before."""


def beginning(work: Work, conversation: Sequence[dict[str, Any]], instruction: str) -> Progress:
    """The state of a request that has just come in; ``instruction`` is the caller's own."""
    prompt = work.instruction("\n\n".join(filter(None, [work.agent.system_prompt, instruction])))
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
        "cost": 0.0,
        "wants_to_answer": False,
        "forced": None,
        "ending": None,
        "finish_reason": None,
        "results": {},
        "taken": {},
        "next": None,
    }


async def run(flow: Flow, work: Work, begin: Progress | None, thread: str | None = None) -> AsyncGenerator[Event, None]:
    """What happens, as it happens; the last event is ``Ended``.

    Args:
        flow: the agent's.
        work: the request's surroundings.
        begin: from ``beginning``; None goes on where the thread's last checkpoint is.
        thread: the name under which a flow with a saver keeps its state.

    Raises:
        ServingError: the model cannot be reached, refuses or breaks off; or the agent was changed meanwhile so that its
            work cannot go on.
    """
    events: asyncio.Queue[Event | None] = asyncio.Queue()
    # A task of its own, cancelled from outside: within a scope of anyio, which cancels whatever is awaited meanwhile,
    # LangGraph would not come to cancel its nodes, and the model would go on for nobody.
    driving = asyncio.create_task(_drive(flow, work, begin, thread, events))
    driving.add_done_callback(lambda _: events.put_nowait(None))
    try:
        while (event := await events.get()) is not None:
            yield event
        await driving
    finally:
        driving.cancel()
        await asyncio.wait([driving])


async def _drive(
    flow: Flow, work: Work, begin: Progress | None, thread: str | None, events: asyncio.Queue[Event | None]
) -> None:
    config: RunnableConfig = {"recursion_limit": flow.most_steps}
    if thread is not None:
        config["configurable"] = {"thread_id": thread}
    state: Progress = {}
    told = flow.graph.astream(
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
    if not state.get("ending"):
        raise ServingError("The agent was changed while it worked; ask it again.", code="agent_changed")
    events.put_nowait(Ended(state))
