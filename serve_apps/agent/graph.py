"""An agent's graph as one of LangGraph: each step is a node, which also chooses what comes next.

A parallel step has its branches done at the same time, and then goes on from a node of its own.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import orjson
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from serve_apps.agent import progress
from serve_apps.agent.calling import fenced
from serve_apps.agent.flow import Flow
from serve_apps.agent.graph_config import QUESTION, Ask, CallTool, Graph, filled
from serve_apps.agent.graph_config import Step as Planned
from serve_apps.agent.progress import Progress, Step, StepResult
from serve_apps.agent.tools import Call
from serve_apps.agent.work import Did, Said, Work, performed, turn_of
from serve_apps.common import tracing

Update = dict[str, Any]


class Node(Protocol):
    """What LangGraph calls for a step."""

    def __call__(self, state: Progress, *, runtime: Runtime[Work]) -> Awaitable[Update]:
        """What the step changes."""


def build(planned: Graph, saver: BaseCheckpointSaver[int] | None = None) -> Flow:
    """The graph; with a saver, its state is kept after every step."""
    graph = StateGraph(Progress, context_schema=Work)
    for name, step in planned.steps.items():
        graph.add_node(_node(name), _doing(name, step, planned.branches))
        ways = [*(_node(each.to) for each in step.next), END]
        if step.parallel is not None:
            graph.add_node(_joint(name), _joining(name, step))
            for branch in step.parallel:
                graph.add_edge(_node(name), _node(branch))
                graph.add_edge(_node(branch), _joint(name))
            graph.add_conditional_edges(_joint(name), _way_on, ways)
        elif name not in planned.branches:
            graph.add_conditional_edges(_node(name), _way_on, ways)
    graph.add_edge(START, _node(planned.start))
    # No way is taken twice but for those with a bound, and each time they are, every step may be done again.
    rounds = 1 + sum(each.at_most or 0 for step in planned.steps.values() for each in step.next)
    return Flow(graph.compile(checkpointer=saver), 2 * len(planned.steps) * rounds + 4)


def way_on(name: str, step: Planned, results: dict[str, StepResult], taken: dict[str, int]) -> Update:
    """The step that comes next, and that its way was taken."""
    for number, each in enumerate(step.next):
        way = f"{name} {number}"
        if each.at_most is not None and taken.get(way, 0) >= each.at_most:
            continue
        result = results.get(each.when.step or name) if each.when else None
        if each.when is None or (result is not None and each.when.holds(result["text"], result["failed"])):
            return {"next": each.to, "taken": {way: taken.get(way, 0) + 1}}
    return {"next": None}


def _node(name: str) -> str:
    return f"step {name}"


def _joint(name: str) -> str:
    return f"after {name}"


def _way_on(state: Progress) -> str:
    following = state["next"]
    return END if state["ending"] or following is None else _node(following)


def _doing(name: str, step: Planned, branches: Mapping[str, str]) -> Node:
    """A step: its result is noted and told, and is the answer if nothing comes after it."""
    is_branch = name in branches
    is_last = not step.next and not is_branch

    async def node(state: Progress, *, runtime: Runtime[Work]) -> Update:
        began = time.monotonic()
        with tracing.span(f"step {name}", {"gen_ai.agent.name": runtime.context.name}):
            done, update = await _do(step, state, runtime, answers=is_last)
        if done is None:
            return update
        told = cast(Step, {"step": name, **done, "duration_s": round(time.monotonic() - began, 3)})
        runtime.stream_writer(Did(told))
        result = StepResult(text=told["result"], failed=told["failed"])
        update |= {"steps": [told], "results": {name: result}}
        if is_last:
            return update | {"ending": "answered", "text": result["text"]}
        return update if is_branch else update | way_on(name, step, {**state["results"], name: result}, state["taken"])

    return node


def _joining(name: str, step: Planned) -> Node:
    """Where a parallel step goes on from, when all its branches are done."""

    async def node(state: Progress, *, runtime: Runtime[Work]) -> Update:  # noqa: ARG001  # LangGraph gives it
        return way_on(name, step, state["results"], state["taken"])

    return node


async def _do(
    step: Planned, state: Progress, runtime: Runtime[Work], *, answers: bool
) -> tuple[dict[str, Any] | None, Update]:
    """Do a step; what is told of it (nothing of one without a result), and what it changes."""
    if step.ask is not None:
        return await _ask(step.ask, state, runtime, answers=answers)
    if step.call is not None:
        done, update = await _call(step.call, state, runtime)
    elif step.say is not None:
        done, update = {"result": filled(step.say, _values(state)), "failed": False}, {}
    else:
        done, update = None, {}
    if done is not None and answers:
        runtime.stream_writer(Said(done["result"]))
    return done, update


async def _ask(
    ask: Ask, state: Progress, runtime: Runtime[Work], *, answers: bool
) -> tuple[dict[str, Any] | None, Update]:
    work = runtime.context
    if state["turns"] >= work.agent.limits.steps:
        return None, {"ending": "steps"}
    *before, last = state["messages"]
    prompt = filled(ask.prompt, _values(state, _fenced))
    model = ask.model or work.agent.model
    request = {
        "model": model,
        "messages": [*before, {**last, "content": _replaced(last["content"], prompt)}],
        "temperature": work.agent.temperature,
        **(work.sampling if answers else {}),
        **(_held_to(ask.choices, work.agent.max_call_tokens) if ask.choices else {}),
    }
    streams = answers and not ask.choices
    turn, over = await turn_of(state, runtime, request, speaks=streams)
    update: Update = {"turns": 1, "usage": turn.usage, "cost": work.cost(model, turn.usage)}
    if answers:
        update["finish_reason"] = turn.finish_reason
    if over:
        return None, update | {"ending": over, "text": turn.text if streams else ""}
    text = _chosen(turn.text, ask.choices) if ask.choices else turn.text
    if answers and not streams:
        runtime.stream_writer(Said(text or ""))
    return {"model": model, "result": text or "", "failed": text is None}, update


async def _call(planned: CallTool, state: Progress, runtime: Runtime[Work]) -> tuple[dict[str, Any] | None, Update]:
    work, limits, now_s = runtime.context, runtime.context.agent.limits, time.time()
    call = Call("", planned.function, _filled(planned.arguments, _values(state)))
    pending = cast(Progress, {**state, "pending": [{"key": call.key}]})
    if ending := progress.exhausted(state, limits, now_s) or progress.must_answer(pending, limits):
        return None, {"ending": ending}
    outcome = await performed(call, work, state["began_s"] + limits.wall_time_s - now_s)
    done = {"tool": call.name, "arguments": call.arguments, "result": outcome.text, "failed": outcome.failed}
    return done, {"done": [call.key], "usage": dict(outcome.usage), "cost": outcome.cost}


def _values(state: Progress, shown: Callable[[str, str], str] = lambda _, text: text) -> dict[str, str]:
    """What names in braces stand for; ``shown(tool, text)`` is how the result of a tool's call is."""
    called = {each["step"]: each["tool"] for each in state["steps"] if "step" in each and "tool" in each}
    results = {
        name: shown(called[name], result["text"]) if name in called else result["text"]
        for name, result in state["results"].items()
    }
    return {QUESTION: _text(state["messages"][-1]["content"]), **results}


def _fenced(tool: str, text: str) -> str:
    return f"\n{fenced(tool, text)}\n"


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    """A JSON value with the names in its texts replaced."""
    if isinstance(value, str):
        return filled(value, values)
    if isinstance(value, Mapping):
        return {name: _filled(each, values) for name, each in value.items()}
    return [_filled(each, values) for each in value] if isinstance(value, list | tuple) else value


def _text(content: Any) -> str:
    """The words of a user's message."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))


def _replaced(content: Any, prompt: str) -> Any:
    """A user's message with other words; its images stay."""
    if isinstance(content, str):
        return prompt
    return [{"type": "text", "text": prompt}, *(part for part in content if "text" not in part)]


def _held_to(choices: Sequence[str], max_tokens: int) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"choice": {"enum": [*choices]}},
        "required": ["choice"],
        "additionalProperties": False,
    }
    held = {"name": "choice", "schema": schema, "strict": True}
    response_format = {"type": "json_schema", "json_schema": held}
    return {"temperature": 0, "max_tokens": max_tokens, "response_format": response_format}


def _chosen(text: str, choices: Sequence[str]) -> str | None:
    """The choice in a model's turn; None if it was cut short or is not held to what it may say."""
    try:
        choice = orjson.loads(text)["choice"]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return None
    return choice if choice in choices else None
