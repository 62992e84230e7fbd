"""The model's answer as the pipeline's: its own name, its citations, and what did not take part.

A chat stream is relayed event by event as it comes. Where links are let through unseen, only two events are taken
apart: the first, when the answer must begin with a notice, and the last, which brings the annotations.
"""

import re
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson

from serve_apps.common import sse
from serve_apps.common.errors import ServingError
from serve_apps.rag.links import LinkFilter
from serve_apps.rag.retriever import Retrieval

# Inside a JSON string every quote is escaped, so these match the event's own keys and never the answer's text.
_MODEL = re.compile(rb'"model":\s*"[^"\\]*"')
_ROLE = re.compile(rb'"role":\s*"')
_FINISHED = re.compile(rb'"finish_reason":\s*"')
_ERROR = re.compile(rb'\{\s*"error":')

#: What a model says, in the fields of a message or of a delta: thoughts are shown, too.
_TEXTS = ("content", "reasoning", "reasoning_content")


@dataclass(frozen=True, slots=True)
class Answer:
    """How one question's answer leaves the pipeline."""

    model: str
    """The pipeline's name."""
    retrieval: Retrieval
    notice: str = ""
    """What the answer begins with."""
    links: frozenset[str] | None = None
    """The addresses it may have; None: any."""

    def chat(self, completion: dict[str, Any]) -> dict[str, Any]:
        """A chat completion, with annotations in its messages."""
        completion["model"] = self.model
        for choice in completion["choices"]:
            message = choice["message"]
            for name in _TEXTS:
                if isinstance(message.get(name), str):
                    message[name] = self._checked(message[name])
            if message.get("content") is not None:
                message["content"] = self.notice + message["content"]
            message["annotations"] = self._annotations()
        return self._flagged(completion)

    async def chat_events(self, payloads: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The events of a chat completion stream, with annotations in the delta that ends a choice.

        Raises:
            ServingError: before the first event; later a failure is the stream's last event.
        """
        name = b'"model":' + orjson.dumps(self.model)
        begun = False
        texts: defaultdict[tuple[int, str], LinkFilter] = defaultdict(self._filter)
        try:
            async for payload in payloads:
                begun = True
                if payload == sse.DONE or _ERROR.match(payload):
                    yield sse.data(payload)
                    return
                named = _MODEL.sub(name, payload, count=1)
                ours = self.links is not None or (self.notice and _ROLE.search(named)) or _FINISHED.search(named)
                yield sse.data(self._completed(named, texts) if ours else named)
        except ServingError as error:
            if not begun:
                raise
            yield sse.data(error.encoded())

    def query(self, completion: dict[str, Any]) -> dict[str, Any]:
        """The body of a query's response."""
        return {
            "answer": self.notice + self._checked(completion["choices"][0]["message"].get("content") or ""),
            **self._evidence(),
            "usage": completion.get("usage"),
        }

    async def query_events(self, payloads: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The events of a streamed query: ``citations``, then ``token`` …, then ``done`` or ``error``.

        Raises:
            ServingError: before the first event; later a failure is the ``error`` event.
        """
        begun = False
        links = self._filter()
        ending: dict[str, Any] = {"finish_reason": None, "usage": None}
        try:
            async for payload in payloads:
                if not begun:
                    begun = True
                    yield sse.event("citations", self._evidence())
                    if self.notice:
                        yield sse.event("token", {"text": self.notice})
                if payload == sse.DONE:
                    break
                chunk = orjson.loads(payload)
                if "error" in chunk:
                    yield sse.event("error", chunk)
                    return
                ending["usage"] = chunk.get("usage") or ending["usage"]
                for choice in chunk["choices"]:
                    ending["finish_reason"] = choice.get("finish_reason") or ending["finish_reason"]
                    if text := links.feed(choice["delta"].get("content") or ""):
                        yield sse.event("token", {"text": text})
            if text := links.finish():
                yield sse.event("token", {"text": text})
            yield sse.event("done", {**ending, "degraded": self.retrieval.degraded})
        except ServingError as error:
            if not begun:
                raise
            yield sse.event("error", error.body())

    def _completed(self, payload: bytes, texts: defaultdict[tuple[int, str], LinkFilter]) -> bytes:
        """An event with the notice where a choice begins, its links checked, and the annotations where it ends."""
        chunk = orjson.loads(payload)
        for choice in chunk["choices"]:
            delta = choice["delta"]
            ends = choice.get("finish_reason")
            for name in _TEXTS:
                links = texts[choice["index"], name]
                text = links.feed(delta.get(name) or "")
                if self.notice and name == "content" and delta.get("role"):
                    text = self.notice + text
                if ends:
                    text += links.finish()
                if text or delta.get(name):
                    delta[name] = text
            if ends:
                delta["annotations"] = self._annotations()
                self._flagged(chunk)
        return orjson.dumps(chunk)

    def _filter(self) -> LinkFilter:
        return LinkFilter(self.links)

    def _checked(self, text: str) -> str:
        links = self._filter()
        return links.feed(text) + links.finish()

    def _annotations(self) -> list[dict[str, Any]]:
        return [{"type": "file_citation", "file_citation": source.citation()} for source in self.retrieval.sources]

    def _evidence(self) -> dict[str, Any]:
        return {
            "citations": [source.citation() for source in self.retrieval.sources],
            "degraded": self.retrieval.degraded,
        }

    def _flagged(self, body: dict[str, Any]) -> dict[str, Any]:
        """``degraded`` in an OpenAI-shaped body only where there is something to flag."""
        if self.retrieval.degraded:
            body["degraded"] = self.retrieval.degraded
        return body
