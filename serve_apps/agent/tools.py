"""Tools as an agent sees them: functions with a name, a description, a schema of arguments and an outcome in words."""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, UnknownType, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from serve_apps.agent import calculator
from serve_apps.agent.calculator import NotArithmetic
from serve_apps.agent.config import Tool
from serve_apps.common.errors import ServingError
from serve_apps.common.gateway_client import Caller

Arguments = dict[str, Any]


class ToolFailed(Exception):
    """Why a tool has no result, as the model is told."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool found."""

    text: str
    usage: Mapping[str, int] = field(default_factory=dict)
    """Tokens that models behind it used."""


@dataclass(frozen=True, slots=True)
class Function:
    """Something a model can call."""

    name: str
    """Unique in the agent."""
    tool: str
    """The tool it belongs to, in the agent's values."""
    description: str
    parameters: dict[str, Any]
    """A JSON schema of an object."""
    call: Callable[[Arguments, Caller], Coroutine[Any, Any, Result]]
    """Raises ToolFailed, or a ServingError."""
    timeout_s: float = 60
    asks: str = ""
    """The pipeline whose price its tokens have, if models are behind it."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call a model asked for."""

    id: str
    name: str
    arguments: Arguments | None
    """None: what the model wrote is no JSON object."""

    @property
    def key(self) -> str:
        """The same for calls of the same function with the same arguments."""
        return f"{self.name} {orjson.dumps(self.arguments, option=orjson.OPT_SORT_KEYS).decode()}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call went."""

    text: str
    failed: bool
    duration_s: float
    usage: Mapping[str, int] = field(default_factory=dict)
    cost: float = 0.0
    """Of that usage, in the currency of the prices."""


class Asks(Protocol):
    """What tools need of the gateway's client."""

    async def ask(self, path: str, request: dict[str, Any], caller: Caller, whom: str) -> dict[str, Any]:
        """The JSON object that ``path`` answers."""


async def perform(
    function: Function | None, call: Call, known: Sequence[str], caller: Caller, time_left_s: float, max_chars: int
) -> Outcome:
    """Do a call. Whatever goes wrong is an outcome that tells the model, since it can often do better.

    Args:
        function: what is called; None if there is no such function.
        call: as the model asked for it.
        known: the names of all functions, for the error.
        caller: whom it is done for.
        time_left_s: what remains of the request's time.
        max_chars: of the outcome's text; the rest is cut.
    """
    began = time.monotonic()
    usage: Mapping[str, int] = {}
    failed = True
    try:
        if function is None:
            raise ToolFailed(f"there is no tool {call.name!r}; there are {', '.join(known) or 'none'}")
        arguments = _checked(function, call)
        async with asyncio.timeout(max(min(function.timeout_s, time_left_s), 0)):
            result = await function.call(arguments, caller)
        text, usage, failed = result.text, result.usage, False
    except ToolFailed as error:
        text = f"Error: {error}"
    except ServingError as error:
        text = f"Error: {error.message}"
    except TimeoutError:
        text = f"Error: no answer within {time.monotonic() - began:.3g} s"
    if len(text) > max_chars:
        text = f"{text[:max_chars]}… (cut: {len(text)} characters in all)"
    return Outcome(text, failed, time.monotonic() - began, usage)


def _checked(function: Function, call: Call) -> Arguments:
    if call.arguments is None:
        raise ToolFailed("the arguments are not a JSON object")
    try:
        # With a registry of its own, jsonschema fetches no schema that another one refers to.
        Draft202012Validator(function.parameters, registry=Registry()).validate(call.arguments)
    except ValidationError as error:
        path = ".".join(map(str, error.absolute_path))
        raise ToolFailed(f"arguments{f'.{path}' if path else ''}: {error.message}") from error
    except (SchemaError, UnknownType, Unresolvable, re.error) as error:
        raise ToolFailed("the tool's own schema is broken") from error
    return call.arguments


def calculator_function(name: str, tool: Tool) -> Function:
    """The built-in calculator."""

    async def call(arguments: Arguments, _: Caller) -> Result:
        try:
            return Result(calculator.shown(calculator.evaluate(arguments["expression"])))
        except NotArithmetic as error:
            raise ToolFailed(str(error)) from error

    expression = {
        "type": "string",
        "maxLength": calculator.MAX_CHARS,
        "description": "An arithmetic expression, for example (17 + 4) * 3",
    }
    description = tool.description or "Works out an arithmetic expression."
    return Function(name, name, description, _object({"expression": expression}), call)


def rag_function(name: str, tool: Tool, pipeline: str, top_k: int | None, gateway: Asks) -> Function:
    """Questions to a RAG pipeline, which answers from its documents."""

    async def call(arguments: Arguments, caller: Caller) -> Result:
        request = {"question": arguments["question"], **({"top_k": top_k} if top_k else {})}
        answer = await gateway.ask(f"/v1/rag/{pipeline}/query", request, caller, f"Pipeline {pipeline!r}")
        text = str(answer.get("answer", ""))
        cited = dict.fromkeys(
            str(each["document"])
            for each in answer.get("citations") or []
            if isinstance(each, dict) and "document" in each
        )
        sources = f"\nSources: {', '.join(cited)}" if cited else ""
        missing = ", ".join(map(str, answer.get("degraded") or []))
        degraded = f"\nThis may be incomplete; what did not work: {missing}" if missing else ""
        return Result(text + sources + degraded, answer.get("usage") or {})

    question = {"type": "string", "minLength": 1, "maxLength": 500, "description": "A whole question"}
    description = tool.description or f"Answers a question from the documents in {pipeline}."
    return Function(name, name, description, _object({"question": question}), call, asks=pipeline)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
