"""A gateway whose models say what a test has written down, and which refuses what vLLM would refuse.

A reply to a request with a JSON schema must fit the schema, as constrained decoding would see to it: a script that does
not is a mistake in the test, and so is a request that no script is left for.
"""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from serve_apps.common.middleware import Receive, Scope, Send
from serve_apps.common.protocol import INTERNAL_HEADER

TOKEN = "internal-token"
#: What every turn of a model reports.
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}

_FIELDS = {
    "model", "messages", "stream", "stream_options", "max_tokens", "temperature", "tools", "tool_choice",
    "response_format", "top_p", "top_k", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty", "user",
}  # fmt: skip
_FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Says:
    """A turn in words; a dict is JSON."""

    what: str | dict[str, Any]
    finish_reason: str = "stop"
    breaks_off: bool = False
    endless: bool = False


@dataclass(frozen=True)
class Calls:
    """A turn with the API's own tool calls: names and arguments, as JSON or as broken text."""

    calls: tuple[tuple[str, dict[str, Any] | str], ...]
    before: str = ""


@dataclass(frozen=True)
class Refuses:
    """An error instead of a turn."""

    status: int
    message: str


Reply = Says | Calls | Refuses


@dataclass
class Asked:
    """A request as the gateway saw it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class FakeModels:
    """An ASGI app with the gateway's paths that agents use."""

    script: list[Reply] = field(default_factory=list)
    """The turns, in order."""
    improvise: Callable[[dict[str, Any]], Reply] | None = None
    """What is said when the script is over."""
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What a pipeline answers to every question."""
    asked: list[Asked] = field(default_factory=list)
    began: threading.Event = field(default_factory=threading.Event)
    """Set when an endless turn has begun."""
    aborted: threading.Event = field(default_factory=threading.Event)
    """Set when the client of an endless turn went away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path, body = request.url.path, json.loads(await request.body())
        self.asked.append(Asked(path, dict(request.headers), body))
        if request.headers.get(INTERNAL_HEADER) != TOKEN:
            response: Response = _refusal(401, "no credential")
        elif path == "/v1/chat/completions":
            response = self._turn(body)
        else:
            response = self._pipeline(path, body)
        await response(scope, receive, send)

    @property
    def turns(self) -> list[dict[str, Any]]:
        """The bodies of the chat completions asked for."""
        return [each.body for each in self.asked if each.path == "/v1/chat/completions"]

    def _pipeline(self, path: str, body: dict[str, Any]) -> Response:
        name = path.removeprefix("/v1/rag/").removesuffix("/query")
        if name not in self.pipelines:
            return _refusal(404, f'The pipeline "{name}" does not exist.')
        assert set(body) <= {"question", "top_k"}
        return JSONResponse(self.pipelines[name])

    def _turn(self, body: dict[str, Any]) -> Response:
        if problem := _problem(body):
            return _refusal(400, problem)
        reply = self.script.pop(0) if self.script else self.improvise(body) if self.improvise else None
        assert reply is not None, "the script is over"
        if isinstance(reply, Refuses):
            return _refusal(reply.status, reply.message)
        if isinstance(reply, Says) and (held := body.get("response_format")) and reply.finish_reason == "stop":
            said = json.loads(reply.what) if isinstance(reply.what, str) else reply.what
            Draft202012Validator(held["json_schema"]["schema"]).validate(said)
        return StreamingResponse(self._events(reply, body), media_type="text/event-stream")

    async def _events(self, reply: Says | Calls, body: dict[str, Any]) -> AsyncIterator[str]:
        yield _chunk({"role": "assistant", "content": ""})
        said = (
            (json.dumps(reply.what) if isinstance(reply.what, dict) else reply.what)
            if isinstance(reply, Says)
            else reply.before
        )
        for piece in re.findall(r"\S+\s*|\s+", said):
            yield _chunk({"content": piece})
        if isinstance(reply, Says) and reply.breaks_off:
            return
        if isinstance(reply, Says) and reply.endless:
            self.began.set()
            try:
                while True:
                    yield _chunk({"content": "on "})
                    await asyncio.sleep(0.01)
            finally:
                self.aborted.set()
        if isinstance(reply, Calls):
            for piece in _call_pieces(reply):
                yield _chunk({"tool_calls": [piece]})
        yield _chunk({}, reply.finish_reason if isinstance(reply, Says) else "tool_calls")
        assert body["stream_options"] == {"include_usage": True}
        yield _event({"choices": [], "usage": USAGE})
        yield "data: [DONE]\n\n"


def _call_pieces(reply: Calls) -> Iterator[dict[str, Any]]:
    """As vLLM streams calls: the name first, then the arguments bit by bit."""
    for index, (name, arguments) in enumerate(reply.calls):
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        yield {
            "index": index,
            "id": f"chatcmpl-tool-{index}",
            "type": "function",
            "function": {"name": name, "arguments": ""},
        }
        for begin in range(0, len(text), 5):
            yield {"index": index, "function": {"arguments": text[begin : begin + 5]}}


def _problem(body: dict[str, Any]) -> str | None:
    """Why vLLM, or a strict chat template, would refuse a request."""
    if unknown := set(body) - _FIELDS:
        return f"unknown fields {sorted(unknown)}"
    if not isinstance(body["max_tokens"], int) or body["max_tokens"] < 1:
        return "max_tokens must be at least 1"
    if body["stream"] is not True:
        return "agents stream"
    names = [each["function"]["name"] for each in body.get("tools", [])]
    if "tools" in body and (not names or len(set(names)) != len(names)):
        return "tools must be distinct, and some"
    if any(not _FUNCTION_NAME.fullmatch(name) for name in names):
        return f"not function names: {names}"
    if body.get("tool_choice") and "tools" not in body:
        return "tool_choice without tools"
    if held := body.get("response_format"):
        Draft202012Validator.check_schema(held["json_schema"]["schema"])
    return _disorder(body["messages"])


def _disorder(messages: list[dict[str, Any]]) -> str | None:
    """What is wrong with the order of turns: system first, then user and assistant in turns, results after calls."""
    before = "start"
    due: list[str] = []
    for number, message in enumerate(messages):
        role = message["role"]
        if role == "tool":
            if message["tool_call_id"] not in due:
                return f"message {number} is a result of no call"
            due.remove(message["tool_call_id"])
            before = "tool"
            continue
        if due:
            return f"message {number}: calls without results {due}"
        allowed = {
            "start": {"system", "user"}, "system": {"user"}, "user": {"assistant"}, "assistant": {"user"},
            "tool": {"assistant"},
        }  # fmt: skip
        if role not in allowed[before]:
            return f"message {number}: {role} after {before}"
        due = [call["id"] for call in message.get("tool_calls", [])]
        before = role
    return None if before in ("user", "tool") and not due else f"the last message is of {before}, calls due {due}"


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> str:
    return _event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})


def _event(more: dict[str, Any]) -> str:
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "chat", **more}
    return f"data: {json.dumps(chunk)}\n\n"


def _refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error", "code": "some_code"}}, status)
