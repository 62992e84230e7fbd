"""A gateway whose models are arithmetic: the same text always gets the same vector, score and answer."""

import asyncio
import base64
import json
import re
import threading
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from serve_apps.common.middleware import Receive, Scope, Send
from serve_apps.common.protocol import INTERNAL_HEADER
from serve_apps.rag.vector_store import Vector

TOKEN = "internal-token"
DIMENSION = 512
#: What the models take for a token: a word's beginning, the rest of it, a sign.
TOKEN_TEXT = re.compile(r"\w{1,5}|[^\w\s]")


def embedding(text: str, dimension: int = DIMENSION) -> Vector:
    """A bag of words, hashed: texts are as similar as the words they share."""
    vector = np.zeros(dimension, dtype=np.float32)
    for word in re.findall(r"[a-z0-9]+", text.lower()):
        vector[zlib.crc32(word.encode()) % dimension] += 1
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


@dataclass
class Asked:
    """A request as the gateway saw it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class FakeGateway:
    """An ASGI app with the gateway's model paths. A test sets what is down, and reads what was asked."""

    dimension: int = DIMENSION
    window: int = 512
    """Tokens that the embedder reads."""
    answer: str = "The gateway is the only way in [1]."
    down: dict[str, Response] = field(default_factory=dict)
    """What a path answers instead."""
    models_down: dict[str, Response] = field(default_factory=dict)
    """What a model that chats answers instead."""
    window_chars: int | None = None
    """Characters of a prompt that models which chat take."""
    hanging: set[str] = field(default_factory=set)
    """The paths and the models that never answer."""
    ending: list[str] = field(default_factory=lambda: ["[DONE]"])
    """The payloads that end a stream; none: it just breaks off."""
    endless: bool = False
    """Whether a chat answer never comes to its end."""
    asked: list[Asked] = field(default_factory=list)
    began: threading.Event = field(default_factory=threading.Event)
    """Set when an endless answer has begun."""
    aborted: threading.Event = field(default_factory=threading.Event)
    """Set when the client of an endless answer went away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._respond(request)
        await response(scope, receive, send)

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """What was asked of ``path``, in order."""
        return [each.body for each in self.asked if each.path == path]

    async def _respond(self, request: Request) -> Response:
        path, body = request.url.path, json.loads(await request.body())
        self.asked.append(Asked(path, dict(request.headers), body))
        if request.headers.get(INTERNAL_HEADER) != TOKEN:
            return JSONResponse({"error": {"message": "no credential", "code": None}}, 401)
        if path in self.down:
            return self.down[path]
        if {path, body.get("model")} & self.hanging:
            await self._until_gone(request)
        if path == "/v1/embeddings":
            return JSONResponse({"data": self._embeddings(body)})
        if path == "/tokenize":
            return JSONResponse({"tokens": self._tokens(body), "max_model_len": self.window})
        if path == "/v1/rerank":
            return JSONResponse({"results": _by_shared_words(body["query"], body["documents"])})
        if self.endless and not body["stream"]:
            self.began.set()
            await self._until_gone(request)
        if body["model"] in self.models_down:
            return self.models_down[body["model"]]
        if self.window_chars is not None and len(json.dumps(body["messages"])) > self.window_chars:
            return refusal(400, "This model's maximum context length is 2048 tokens. However, your request has 4000.")
        return self._chat(request, body)

    def _embeddings(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        vectors = [embedding(text, self.dimension) for text in body["input"]]
        if body.get("encoding_format") == "base64":
            data = [{"index": i, "embedding": base64.b64encode(v.tobytes()).decode()} for i, v in enumerate(vectors)]
        else:
            data = [{"index": i, "embedding": vector.tolist()} for i, vector in enumerate(vectors)]
        return data[::-1]  # the order is the index's business

    def _tokens(self, body: dict[str, Any]) -> list[int]:
        tokens = [zlib.crc32(token.encode()) for token in TOKEN_TEXT.findall(body["prompt"])]
        return [101, *tokens, 102] if body["add_special_tokens"] else tokens

    def _chat(self, request: Request, body: dict[str, Any]) -> Response:
        usage = {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}
        if body["stream"]:
            return StreamingResponse(self._events(request, body, usage), media_type="text/event-stream")
        message = {"role": "assistant", "content": self.answer}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return JSONResponse(
            {"id": "1", "object": "chat.completion", "model": body["model"], "choices": choices, "usage": usage}
        )

    async def _events(self, request: Request, body: dict[str, Any], usage: dict[str, int]) -> AsyncIterator[str]:
        def event(choices: list[dict[str, Any]], **extra: Any) -> str:
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
            return f"data: {json.dumps({**chunk, 'choices': choices, **extra}, separators=(',', ':'))}\n\n"

        def delta(finish_reason: str | None = None, **delta: str) -> str:
            return event([{"index": 0, "delta": delta, "finish_reason": finish_reason}])

        yield delta(role="assistant", content="")
        for word in re.findall(r"\S+\s*", self.answer):
            yield delta(content=word)
        if self.endless:
            self.began.set()
            try:
                while True:
                    yield delta(content="on ")
                    await asyncio.sleep(0.01)
            finally:
                self.aborted.set()
        if self.ending == ["[DONE]"]:
            yield delta(finish_reason="stop")
            if body.get("stream_options", {}).get("include_usage"):
                yield event([], usage=usage)
        for payload in self.ending:
            yield f"data: {payload}\n\n"

    async def _until_gone(self, request: Request) -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(0.01)
        self.aborted.set()


def _by_shared_words(query: str, documents: list[str]) -> list[dict[str, Any]]:
    """Results best first, as rerankers answer: relevance counts how often words of the query occur."""
    words = set(re.findall(r"[a-z0-9]+", query.lower()))
    scores = [sum(word in words for word in re.findall(r"[a-z0-9]+", each.lower())) for each in documents]
    order = sorted(range(len(documents)), key=lambda index: -scores[index])
    return [{"index": index, "relevance_score": scores[index]} for index in order]


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error as the gateway words it."""
    return JSONResponse({"error": {"message": message, "code": "some_code"}}, status, headers)


def overloaded() -> Response:
    """What Serve says when a replica's queue is full."""
    return PlainTextResponse("Request dropped due to backpressure", 503)
