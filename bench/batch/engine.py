"""A model that costs next to nothing and has so many places: ``python -m bench.batch.engine PORT``.

As vLLM with ``scheduling_policy: priority``: ``SEQUENCES`` requests at a time get a token in each step, and of those
that wait the lowest priority number goes first, then the oldest.
"""

import asyncio
import heapq
import math
import sys
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

#: As the preset values/batch.yaml: 32 sequences, and steps as long as an L4 takes to read 15 GB of weights at 300 GB/s.
SEQUENCES = 32
STEP_S = 0.05
#: In each answer, so that the model makes so many of them a second at most.
TOKENS = 10
ANSWERS_PER_S = SEQUENCES / (STEP_S * TOKENS)


class Engine:
    """Tokens in steps, for as many requests as there are places."""

    def __init__(self, sequences: int = SEQUENCES, step_s: float = STEP_S) -> None:
        self._free = sequences
        self._step_s = step_s
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()

    async def tokens(self, number: int, priority: int) -> AsyncIterator[None]:
        """One item for each token, when it is there."""
        await self._place(priority)
        now = asyncio.get_running_loop().time
        step = math.floor(now() / self._step_s + 1e-6)  # everybody's steps are the same
        try:
            for _ in range(number):
                step += 1
                await asyncio.sleep(step * self._step_s - now())
                yield
        finally:
            self._leave()

    async def _place(self, priority: int) -> None:
        if self._free:
            self._free -= 1
            return
        given = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), given))
        try:
            await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled():
                self._leave()
            raise

    def _leave(self) -> None:
        while self._waiting:
            _, _, given = heapq.heappop(self._waiting)
            if not given.done():
                given.set_result(None)
                return
        self._free += 1


def app() -> Starlette:
    """Chat completions in OpenAI's shapes."""
    engine = Engine()
    shared = {"id": "chatcmpl-0", "created": 0, "model": "fake"}
    usage = {"prompt_tokens": 1, "completion_tokens": TOKENS, "total_tokens": TOKENS + 1}

    async def chat(request: Request) -> Response:
        body: dict[str, Any] = orjson.loads(await request.body())
        tokens = engine.tokens(body.get("max_tokens", TOKENS), body.get("priority", 0))
        if body.get("stream"):
            return StreamingResponse(events(tokens), media_type="text/event-stream")
        said = "".join([" token" async for _ in tokens])
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        return JSONResponse({**shared, "object": "chat.completion", "choices": [choice], "usage": usage})

    async def events(tokens: AsyncIterator[None]) -> AsyncIterator[bytes]:
        chunk = {**shared, "object": "chat.completion.chunk"}
        async for _ in tokens:
            choice = {"index": 0, "delta": {"content": " token"}, "finish_reason": None}
            yield b"data: " + orjson.dumps({**chunk, "choices": [choice]}) + b"\n\n"
        yield b"data: " + orjson.dumps({**chunk, "choices": [], "usage": usage}) + b"\n\n"
        yield b"data: [DONE]\n\n"

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


if __name__ == "__main__":
    uvicorn.run(app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
