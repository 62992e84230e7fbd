import asyncio
from typing import Any

import pytest

from serve_apps.agent.config import Tool
from serve_apps.agent.tools import (
    Arguments,
    Call,
    Function,
    Outcome,
    Result,
    ToolFailed,
    calculator_function,
    perform,
    rag_function,
)
from serve_apps.common.errors import Unavailable
from serve_apps.common.gateway_client import Caller
from tests.serve_apps.agent.conftest import CALLER

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 5}},
    "required": ["city"],
    "additionalProperties": False,
}


def performed(
    body: Any, arguments: dict[str, Any] | None, *, time_left_s: float = 10, max_chars: int = 100, schema: Any = CITY
) -> Outcome:
    async def call(arguments: Arguments, _: Caller) -> Result:
        if isinstance(body, BaseException):
            raise body
        await asyncio.sleep(body if isinstance(body, float) else 0)
        return Result(str(body), {"total_tokens": 3})

    function = Function("weather", "weather", "The weather.", schema, call)
    return asyncio.run(perform(function, Call("1", "weather", arguments), [], CALLER, time_left_s, max_chars))


def test_a_result_is_text_and_what_it_cost() -> None:
    outcome = performed("Rain.", {"city": "Bonn"})
    assert (outcome.text, outcome.failed, outcome.usage) == ("Rain.", False, {"total_tokens": 3})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "Error: arguments: 'city' is a required property"),
        ({"city": "Bonn", "days": 9}, "Error: arguments.days: 9 is greater than the maximum of 5"),
        (
            {"city": "Bonn", "land": "DE"},
            "Error: arguments: Additional properties are not allowed ('land' was unexpected)",
        ),
        (None, "Error: the arguments are not a JSON object"),
    ],
)
def test_arguments_that_do_not_fit_are_told_and_nothing_is_called(arguments: dict[str, Any] | None, text: str) -> None:
    outcome = performed(AssertionError("called"), arguments)
    assert (outcome.text, outcome.failed) == (text, True)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ToolFailed("no such city"), "Error: no such city"),
        (
            Unavailable("Pipeline 'docs' cannot be reached; try again."),
            "Error: Pipeline 'docs' cannot be reached; try again.",
        ),
    ],
)
def test_a_tool_that_fails_tells_the_model(error: Exception, text: str) -> None:
    outcome = performed(error, {"city": "Bonn"})
    assert (outcome.text, outcome.failed) == (text, True)


def test_a_tool_has_no_more_time_than_the_request() -> None:
    outcome = performed(60.0, {"city": "Bonn"}, time_left_s=0.05)
    assert outcome.failed
    assert outcome.text.startswith("Error: no answer within 0.")


def test_a_long_result_is_cut() -> None:
    assert performed("x" * 300, {"city": "Bonn"}).text == "x" * 100 + "… (cut: 300 characters in all)"
    assert performed("x" * 100, {"city": "Bonn"}).text == "x" * 100


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"properties": {"city": {"pattern": "("}}},
        # Not even asked for: whoever writes a schema must not choose where we connect to.
        {"$ref": "http://169.254.169.254/schema.json"},
    ],
)
def test_a_broken_schema_is_an_error_and_no_crash(schema: dict[str, Any]) -> None:
    assert performed("Rain.", {"city": "Bonn"}, schema=schema).text == "Error: the tool's own schema is broken"


def test_an_unknown_function_is_told_the_functions_there_are() -> None:
    outcome = asyncio.run(perform(None, Call("1", "wether", {}), ["weather"], CALLER, 10, 100))
    assert outcome.text == "Error: there is no tool 'wether'; there are weather"


def test_calls_are_the_same_whatever_the_order_of_their_arguments() -> None:
    assert Call("1", "f", {"a": 1, "b": 2}).key == Call("2", "f", {"b": 2, "a": 1}).key
    assert Call("1", "f", {"a": 1}).key != Call("1", "f", {"a": 2}).key


def test_the_calculator_calculates_or_says_why_not() -> None:
    function = calculator_function("sums", Tool.model_validate({"calculator": {}}))
    assert asyncio.run(function.call({"expression": "6 * 7"}, CALLER)).text == "42"
    with pytest.raises(ToolFailed, match="division by zero"):
        asyncio.run(function.call({"expression": "1 / 0"}, CALLER))


def test_a_pipelines_answer_names_its_sources_once() -> None:
    class Gateway:
        async def ask(self, path: str, request: dict[str, Any], caller: Caller, whom: str) -> dict[str, Any]:
            assert (path, request, caller) == ("/v1/rag/docs/query", {"question": "How?", "top_k": 3}, CALLER)
            cited = [{"document": "a.md"}, {"document": "a.md"}, {"document": "b.md"}]
            return {"answer": "Thus [1].", "citations": cited, "usage": {"total_tokens": 9}, "degraded": degraded}

    degraded: list[str] = []
    tool = Tool.model_validate({"rag": {"pipeline": "docs", "topK": 3}, "description": "Manuals."})
    function = rag_function("manuals", tool, "docs", 3, Gateway())
    result = asyncio.run(function.call({"question": "How?"}, CALLER))
    assert (result.text, result.usage) == ("Thus [1].\nSources: a.md, b.md", {"total_tokens": 9})
    degraded += ["embed", "rerank"]
    told = asyncio.run(function.call({"question": "How?"}, CALLER)).text
    assert told.endswith("b.md\nThis may be incomplete; what did not work: embed, rerank")
    assert function.description == "Manuals."
