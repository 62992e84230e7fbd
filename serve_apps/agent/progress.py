"""How far a request has come, as plain data that can be kept and taken up again; and what its limits say. Pure."""

from collections.abc import Mapping
from operator import add
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from serve_apps.agent.config import Limits
from serve_apps.common.prices import Price

#: Why the work ended: with the model's own answer, or at a limit.
Ending = Literal["answered", "steps", "tool_calls", "same_call", "tokens", "cost", "wall_time"]


def plus(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    """The sum of two usages."""
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {name: int(left.get(name) or 0) + int(right.get(name) or 0) for name in names}


class Step(TypedDict):
    """A call of a tool, or a step of a graph, that was done."""

    step: NotRequired[str]
    """The step's name, in a graph."""
    model: NotRequired[str]
    """The model that was asked, if one was."""
    tool: NotRequired[str]
    """The function's name, if one was called."""
    arguments: NotRequired[dict[str, Any] | None]
    result: str
    failed: bool
    duration_s: float


class StepResult(TypedDict):
    """What came of a step of a graph."""

    text: str
    failed: bool


def merged(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Both, the newer where both have one."""
    return {**left, **right}


def earlier(left: Ending | None, right: Ending | None) -> Ending | None:
    """Steps that are done at the same time may all come to an end; the first counts."""
    return left or right


class Progress(TypedDict, total=False):
    """The state of the graph; everything in it is JSON. Where a type has an operator, nodes say what is added."""

    began_s: float
    """Unix time."""
    messages: Annotated[list[dict[str, Any]], add]
    """The conversation with the model."""
    pending: list[dict[str, Any]]
    """Calls the model asked for that are not done yet."""
    steps: Annotated[list[Step], add]
    done: Annotated[list[str], add]
    """Keys of the calls that were done."""
    turns: Annotated[int, add]
    """Calls of the model."""
    text: Annotated[str, add]
    """What was said to the caller."""
    usage: Annotated[dict[str, int], plus]
    cost: Annotated[float, add]
    """Of that usage, in the currency of the prices."""
    wants_to_answer: bool
    """Whether the model said so."""
    forced: Ending | None
    """The limit because of which the model must answer."""
    ending: Annotated[Ending | None, earlier]
    """Why it is over; None while it is not."""
    finish_reason: str | None
    """The model's own, of its last turn."""
    results: Annotated[dict[str, StepResult], merged]
    """Of a graph's steps, by name; the last where one was done several times."""
    taken: Annotated[dict[str, int], merged]
    """How often a graph's ways were taken, by step and number."""
    next: str | None
    """The graph's step that comes now."""


def exhausted(progress: Progress, limits: Limits, now_s: float) -> Ending | None:
    """The limit that allows not even an answer."""
    if now_s - progress["began_s"] >= limits.wall_time_s:
        return "wall_time"
    if tokens_left(progress, limits) <= 0:
        return "tokens"
    if limits.cost is not None and progress["cost"] >= limits.cost:
        return "cost"
    return None


def tokens_left(progress: Progress, limits: Limits, price: Price | None = None) -> int:
    """Tokens that may still be used, and at that ``price`` still be paid for."""
    left = limits.tokens - progress["usage"].get("total_tokens", 0)
    if limits.cost is None or price is None or not price.completion:
        return left
    return min(left, max(1, int((limits.cost - progress["cost"]) * 1_000_000 / price.completion)))


def must_answer(progress: Progress, limits: Limits) -> Ending | None:
    """The limit because of which no more tools may be called."""
    if any(progress["done"].count(key) >= limits.same_call for key in set(_keys(progress))):
        return "same_call"
    if len(progress["done"]) + len(progress["pending"]) > limits.tool_calls:
        return "tool_calls"
    return None


def is_last_turn(progress: Progress, limits: Limits) -> bool:
    """Whether the model has one more turn."""
    return progress["turns"] >= limits.steps - 1


def stopped(ending: Ending, limits: Limits) -> str:
    """What is said when there is no answer."""
    what = {
        "steps": f"{limits.steps} steps",
        "tool_calls": f"{limits.tool_calls} tool calls",
        "same_call": f"{limits.same_call} calls of the same kind",
        "tokens": f"{limits.tokens} tokens",
        "cost": f"{limits.cost:g} in cost" if limits.cost is not None else "",
        "wall_time": f"{limits.wall_time_s:g} s",
    }.get(ending, "")
    return f"Stopped without an answer: the agent's limit of {what} was reached." if what else ""


def _keys(progress: Progress) -> list[str]:
    return [call["key"] for call in progress["pending"]]
