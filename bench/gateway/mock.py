"""A model that costs next to nothing: tokens at a pace, in the shapes and sizes that vLLM has.

The request says what is wanted: ``max_tokens`` is how many tokens, ``seed`` how many milliseconds lie between two
(every gateway passes both on). Streams share engines as they do in vLLM: up to 32 get their next token in one step, at
the same moment; more streams are more engines, whose steps lie apart.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson

#: Streams of one engine: the batch that a step serves.
SEQUENCES = 32
#: The steps of neighbouring engines lie this part of a step apart, so that no two of the first dozen coincide.
PHASE = 0.382
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 16, "total_tokens": 116, "completion_tokens": 100}


def _event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    """An event of about 240 bytes, as vLLM 0.29 sends them."""
    shared = {"id": f"chatcmpl-{'0' * 32}", "object": "chat.completion.chunk", "created": 1700000000, "model": "mock"}
    return b"data: " + orjson.dumps({**shared, "choices": choices, **more}) + b"\n\n"


def _token(finish_reason: str | None) -> bytes:
    delta = {"content": " token"}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason, "token_ids": None}
    return _event([choice])


TOKEN = _token(None)
LAST_TOKEN = _token("length")
USAGE_EVENT = _event([], usage=USAGE)
WHOLE: dict[str, Any] = {
    "id": f"chatcmpl-{'0' * 32}",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "mock",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "token"}, "finish_reason": "length"}],
    "usage": USAGE,
}
WHOLE_BODY = orjson.dumps(WHOLE)


@dataclass(frozen=True, slots=True)
class Order:
    """What a request asks for."""

    stream: bool
    tokens: int
    pace_s: float
    include_usage: bool


def read(document: dict[str, Any]) -> Order:
    """The order in a request's parsed body."""
    options = document.get("stream_options") or {}
    return Order(
        stream=bool(document.get("stream")),
        tokens=document.get("max_tokens") or document.get("max_completion_tokens") or 1,
        pace_s=(document.get("seed") or 10) / 1000,
        include_usage=bool(options.get("include_usage")),
    )


class Engine:
    """One batch: whoever waits for the step is woken by the same timer."""

    def __init__(self, pace_s: float, phase: float) -> None:
        """``phase`` is the part of a step by which this engine's steps lie after those of others."""
        self.streams = 0
        self._pace_s = pace_s
        self._phase_s = phase * pace_s
        self._due_s = 0.0
        self._waiting: list[asyncio.Future[None]] = []

    async def step(self) -> None:
        """Wait for the next step."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            grid_s = ((loop.time() - self._phase_s) // self._pace_s + 1) * self._pace_s + self._phase_s
            # A loop's timer may ring a little early; the grid alone would then give the same step again.
            self._due_s = max(grid_s, self._due_s + self._pace_s)
            loop.call_at(self._due_s, self._end_step)
        step = loop.create_future()
        self._waiting.append(step)
        await step

    def _end_step(self) -> None:
        waiting, self._waiting = self._waiting, []
        for step in waiting:
            if not step.done():  # its stream was cancelled
                step.set_result(None)


class Engines:
    """As many engines as the streams need."""

    def __init__(self) -> None:
        self._engines: dict[float, list[Engine]] = {}

    async def tokens(self, order: Order) -> AsyncIterator[bytes]:
        """The events of one stream; the first comes at once."""
        engine = self._with_room(order.pace_s)
        engine.streams += 1
        try:
            for _ in range(order.tokens - 1):
                yield TOKEN
                await engine.step()
            yield LAST_TOKEN + (USAGE_EVENT if order.include_usage else b"") + DONE
        finally:
            engine.streams -= 1

    def _with_room(self, pace_s: float) -> Engine:
        engines = self._engines.setdefault(pace_s, [])
        for engine in engines:
            if engine.streams < SEQUENCES:
                return engine
        engines.append(Engine(pace_s, len(engines) * PHASE % 1))
        return engines[-1]
