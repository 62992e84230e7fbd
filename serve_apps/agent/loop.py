"""The agent's loop as a graph: decide, act, decide …, answer. LangGraph runs it, and keeps its state where it is told.

START ─▶ decide ─▶ act ─▶ decide …
           └────────┴───▶ answer ─▶ END
"""

import asyncio
import time
from typing import Any, Literal

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from serve_apps.agent import progress
from serve_apps.agent.config import Limits
from serve_apps.agent.flow import Flow
from serve_apps.agent.progress import Ending, Progress, Step
from serve_apps.agent.tools import Call
from serve_apps.agent.turn import Turn
from serve_apps.agent.work import Did, Said, Work, performed, turn_of


def build(limits: Limits, saver: BaseCheckpointSaver[int] | None = None) -> Flow:
    """The loop; with a saver, its state is kept after every step."""
    graph = StateGraph(Progress, context_schema=Work)
    graph.add_node("decide", _decide)
    graph.add_node("act", _act)
    graph.add_node("answer", _answer)
    graph.add_conditional_edges(START, _first, ["decide", "answer"])
    graph.add_conditional_edges("decide", _after_decision, ["decide", "act", "answer", END])
    graph.add_conditional_edges("act", _after_action, ["decide", "answer"])
    graph.add_edge("answer", END)
    # Two nodes a turn at most.
    return Flow(graph.compile(checkpointer=saver), 2 * limits.steps + 4)


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
    # A turn in the model's own words may be the answer.
    most = work.answer_tokens if calling.streams else work.agent.max_call_tokens
    request = calling.deciding(state["messages"]) | {"temperature": 0, "max_tokens": most}
    turn, over = await turn_of(state, runtime, request, speaks=calling.streams)
    if over:
        return _ended(over, turn, work)
    decided = calling.decision(turn)
    if decided.answered:
        return _ended("answered", turn, work)
    pending = [
        {"id": call.id, "name": call.name, "arguments": call.arguments, "key": call.key} for call in decided.calls
    ]
    wants = not pending and decided.correction is None
    # A wish to answer is not kept: some chat templates want the user to speak last.
    kept = [] if wants else [decided.message, *([decided.correction] if decided.correction else [])]
    spoken = f"{turn.text}\n\n" if calling.streams and turn.text else ""
    if spoken:
        runtime.stream_writer(Said("\n\n"))
    return {"messages": kept, "pending": pending, "wants_to_answer": wants, "text": spoken, **_counted(turn, work)}


async def _act(state: Progress, *, runtime: Runtime[Work]) -> dict[str, Any]:
    work = runtime.context
    limits = work.agent.limits
    calls = [Call(each["id"], each["name"], each["arguments"]) for each in state["pending"]]
    if forced := progress.must_answer(state, limits):
        refused = ["Error: not called, the limit is reached. Answer from what is known."] * len(calls)
        return {"messages": work.calling.results(calls, refused), "pending": [], "forced": forced}
    left_s = state["began_s"] + limits.wall_time_s - time.time()
    outcomes = await asyncio.gather(*(performed(call, work, left_s) for call in calls))
    steps: list[Step] = []
    usage: dict[str, int] = {}
    cost = 0.0
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
        cost += outcome.cost
        runtime.stream_writer(Did(step))
    return {
        "messages": work.calling.results(calls, [outcome.text for outcome in outcomes]),
        "pending": [],
        "steps": steps,
        "done": [call.key for call in calls],
        "usage": usage,
        "cost": cost,
    }


async def _answer(state: Progress, *, runtime: Runtime[Work]) -> dict[str, Any]:
    work = runtime.context
    sampling = {"temperature": work.agent.temperature, **work.sampling}
    turn, over = await turn_of(state, runtime, work.calling.answering(state["messages"]) | sampling, speaks=True)
    return _ended(over or state["forced"] or "answered", turn, work)


def _ended(ending: Ending, turn: Turn, work: Work) -> dict[str, Any]:
    return {"ending": ending, "finish_reason": turn.finish_reason, "text": turn.text, **_counted(turn, work)}


def _counted(turn: Turn, work: Work) -> dict[str, Any]:
    return {"turns": 1, "usage": turn.usage, "cost": work.cost(work.agent.model, turn.usage)}
