"""Turns of an agent on the scripted tasks, as requests to the real model: what the agent app would ask it."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from serve_apps.agent import calculator
from serve_apps.agent.calling import ANSWER, Json, Message
from serve_apps.agent.config import Agent
from serve_apps.agent.toolbox import Toolbox
from serve_apps.agent.tools import Call, Function
from serve_apps.common.gateway_client import Caller
from serve_apps.common.secrets import UpstreamKeys
from tests.serve_apps.agent.tasks import FACTS, TASKS, TOOLS, Task

#: More than the longest call there can be: every string in one has an end.
MAX_TOKENS = 600


class NoGateway:
    """What tools would ask, and nobody does: their results are written down."""

    async def ask(self, path: str, request: dict[str, Any], caller: Caller, whom: str) -> dict[str, Any]:
        raise AssertionError(path)


AGENT = Agent.model_validate({"model": "chat", "tools": TOOLS})
FUNCTIONS: dict[str, Function] = asyncio.run(
    Toolbox(AGENT, NoGateway(), UpstreamKeys(Path("none"))).functions()
).functions
CALLING = Json(list(FUNCTIONS.values()))


@dataclass(frozen=True)
class Case:
    """A point of a task at which the agent calls a tool."""

    task: Task
    calls_before: int

    def request(self) -> dict[str, Any]:
        """What the model is asked then, but for the choice to answer: here it has to call."""
        asked = CALLING.deciding(list(self._conversation()))
        schema = asked["response_format"]["json_schema"]["schema"]
        schema["anyOf"] = [each for each in schema["anyOf"] if each["properties"]["tool"]["const"] != ANSWER]
        return {"model": AGENT.model, "temperature": 0, "max_tokens": MAX_TOKENS, **asked}

    def _conversation(self) -> Iterator[Message]:
        yield {"role": "system", "content": CALLING.instruction("")}
        yield {"role": "user", "content": self.task.question}
        for name, arguments in self.task.calls[: self.calls_before]:
            call = Call("", name, arguments)
            yield {"role": "assistant", "content": orjson.dumps({"tool": name, "arguments": arguments}).decode()}
            yield from CALLING.results([call], [_result(name, arguments)])


def _result(name: str, arguments: dict[str, Any]) -> str:
    return calculator.shown(calculator.evaluate(arguments["expression"])) if name == "calculate" else FACTS


CASES = [Case(task, before) for task in TASKS for before in range(len(task.calls))]
