"""What leaves the app: an agent's work in the shape of OpenAI's chat completions, with a few fields more.

``end_reason`` says why the work ended, ``steps`` (on request) which tools were called, ``degraded`` which tools could
not be had. ``finish_reason`` is ``stop`` for an answer and ``length`` for one that a limit cut short.
"""

import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import orjson

from serve_apps.agent import progress
from serve_apps.agent.config import Limits
from serve_apps.agent.progress import Progress
from serve_apps.agent.work import Did, Ended, Event, Said
from serve_apps.common import sse
from serve_apps.common.errors import ServingError


@dataclass(frozen=True, slots=True)
class Answer:
    """How one request is answered."""

    agent: str
    limits: Limits
    missing: tuple[str, ...] = ()
    """Tools that could not be had."""
    include_steps: bool = False
    include_usage: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    async def chat(self, events: AsyncGenerator[Event, None]) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        async for event in events:
            if isinstance(event, Ended):
                return self.completion(event.progress)
        raise ServingError("The agent did not come to an end.")

    def completion(self, state: Progress) -> dict[str, Any]:
        """The body for work that is over."""
        message = {"role": "assistant", "content": state["text"] or self._stopped(state)}
        choices = [{"index": 0, "message": message, "finish_reason": finish_reason(state)}]
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.agent,
            "choices": choices,
            "usage": progress.plus(state["usage"], {}),
            "end_reason": state["ending"],
            **({"steps": state["steps"]} if self.include_steps else {}),
            **self._degraded(),
        }

    async def chat_events(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
        """The events of a streamed response.

        Raises:
            ServingError: before the first event; later a failure is an event with ``error``, and the last.
        """
        begun = False
        try:
            async for event in events:
                if isinstance(event, Did) and not self.include_steps:
                    continue
                if not begun:
                    begun = True
                    yield self._chunk([_delta({"role": "assistant", "content": ""})])
                if isinstance(event, Said):
                    yield self._chunk([_delta({"content": event.text})])
                elif isinstance(event, Did):
                    yield self._chunk([], step=event.step)
                else:
                    for last in self._last(event.progress):
                        yield last
        except ServingError as error:
            if not begun:
                raise
            yield sse.data(error.encoded())

    def _last(self, state: Progress) -> list[bytes]:
        said = [] if state["text"] else [self._chunk([_delta({"content": self._stopped(state)})])]
        finished = self._chunk([_delta({}, finish_reason(state))], end_reason=state["ending"], **self._degraded())
        usage = [self._chunk([], usage=progress.plus(state["usage"], {}))] if self.include_usage else []
        return [*said, finished, *usage, sse.data(sse.DONE)]

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        chunk = {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.agent}
        return sse.data(orjson.dumps({**chunk, "choices": choices, **more}))

    def _stopped(self, state: Progress) -> str:
        return progress.stopped(state["ending"], self.limits) if state["ending"] else ""

    def _degraded(self) -> dict[str, Any]:
        return {"degraded": list(self.missing)} if self.missing else {}


def finish_reason(state: Progress) -> str:
    """OpenAI's word for why the answer ends where it does."""
    return "stop" if state["ending"] == "answered" and state["finish_reason"] != "length" else "length"


def _delta(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}
