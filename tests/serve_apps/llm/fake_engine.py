"""An engine without a model: it counts out words, as fast or as slowly as a test wants.

Ray loads it in place of vLLM through RAYLLM_VLLM_ENGINE_CLS, inside the real VLLMServer, Serve and HAProxy. It keeps
what the rest of the system depends on: vLLM's app shape, its sampling defaults, and that a vanished client ends the
generation. Environment: FAKE_START_S (seconds to start), FAKE_TOKEN_S (seconds per word), FAKE_HELD_FROM (a file with
a number: chats whose last message ends in ``-`` and that number or a higher one wait while it says so), FAKE_JOURNAL (a
file that gets one line per request: started, finished or aborted; prefilled or decoded before, where prompts are read
elsewhere; and asked, with the chat's last message).
"""

import asyncio
import json
import os
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from ray.serve.llm.openai_api_models import ChatCompletionResponse, CompletionResponse

from serve_apps.llm.compat import LLMEngine

DEFAULT_WORDS = 5
_USAGE = {"prompt_tokens": 1, "total_tokens": 1}


class FakeEngine(LLMEngine):
    """Answers chat completions and embeddings in OpenAI's shape, and completions over Serve's handles."""

    def __init__(self, llm_config: Any) -> None:
        llm_config.setup_engine_backend()  # as vLLM's does: how KV caches move, if they do
        self._model_id = llm_config.model_id
        self._token_s = float(os.environ.get("FAKE_TOKEN_S", "0"))
        self._journal = Path(os.environ.get("FAKE_JOURNAL", os.devnull))
        self._held_from = Path(file) if (file := os.environ.get("FAKE_HELD_FROM")) else None
        chat = SimpleNamespace(
            default_sampling_params={}, model_config=SimpleNamespace(get_diff_sampling_param=dict[str, Any])
        )
        self._app_state = SimpleNamespace(openai_serving_chat=chat)

    async def start(self) -> None:
        await asyncio.sleep(float(os.environ.get("FAKE_START_S", "0")))

    async def build_asgi_app(self) -> FastAPI:
        app = FastAPI()
        app.post("/v1/chat/completions")(self._chat)
        app.post("/v1/embeddings")(self._embed)
        app.post("/tokenize")(self._tokenize)
        app.get("/metrics")(lambda: "never reachable")
        # vLLM's app has built its middleware by the time it is handed over.
        app.middleware_stack = app.build_middleware_stack()
        return app

    def _write(self, event: str) -> None:
        with self._journal.open("a") as journal:
            journal.write(f"{event}\n")

    async def _words(self, count: int) -> AsyncIterator[str]:
        self._write("started")
        done = False
        try:
            for number in range(count):
                await asyncio.sleep(self._token_s)
                yield f"word{number} "
            done = True
        finally:
            self._write("finished" if done else "aborted")

    async def _chat(self, request: Request) -> Any:
        body = await request.json()
        self._write(f"asked {body['messages'][-1]['content']}")
        await self._released(body["messages"][-1]["content"])
        count = self._count(body.get("max_tokens"))
        if body.get("stream"):
            return StreamingResponse(self._events(count), media_type="text/event-stream")
        generation = asyncio.ensure_future(self._whole(count))
        gone = asyncio.ensure_future(_disconnected(request))
        await asyncio.wait([generation, gone], return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not generation.done():
            generation.cancel()
            return JSONResponse({}, status_code=499)
        message = {"role": "assistant", "content": generation.result()}
        usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return self._reply("chat.completion", choices=[choice], usage=usage)

    async def _released(self, message: str) -> None:
        """Wait while the test has it so."""
        while self._held_from and int(message.rpartition("-")[2]) >= int(self._held_from.read_text()):
            await asyncio.sleep(0.05)

    def _count(self, asked: int | None) -> int:
        defaults = self._app_state.openai_serving_chat.default_sampling_params
        count: int = asked or defaults.get("max_tokens") or DEFAULT_WORDS
        return count

    async def _whole(self, count: int) -> str:
        return "".join([word async for word in self._words(count)])

    async def _events(self, count: int) -> AsyncIterator[str]:
        async for word in self._words(count):
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            yield f"data: {json.dumps(self._reply('chat.completion.chunk', choices=[choice]))}\n\n"
        yield "data: [DONE]\n\n"

    async def _embed(self, request: Request) -> Any:
        body = await request.json()
        inputs = [body["input"]] if isinstance(body["input"], str) else body["input"]
        data = [
            {"object": "embedding", "index": index, "embedding": [float(len(text)), 1.0, 0.0]}
            for index, text in enumerate(inputs)
        ]
        return self._reply("list", data=data, usage={"prompt_tokens": len(inputs), "total_tokens": len(inputs)})

    async def _tokenize(self, request: Request) -> Any:
        """A token for each word."""
        tokens = [zlib.crc32(word.encode()) for word in (await request.json())["prompt"].split()]
        return {"count": len(tokens), "max_model_len": 256, "tokens": tokens, "token_strs": None}

    def _reply(self, kind: str, **fields: Any) -> dict[str, Any]:
        return {"id": "fake", "object": kind, "created": 0, "model": self._model_id, **fields}

    async def check_health(self) -> None:
        return None

    def routing_stats(self) -> dict[str, Any]:
        return {}

    async def resolve_lora(self, lora_model: Any) -> None:
        raise RuntimeError("not used over HTTP")

    async def embeddings(self, *_: Any) -> Any:
        raise RuntimeError("not used over HTTP")

    transcriptions = embeddings

    def _moved(self, request: Any) -> dict[str, Any] | None:
        """Where this engine keeps the KV cache of a prompt that another one will answer; None unless it is asked to."""
        asked = request.kv_transfer_params or {}
        if asked.get("do_remote_prefill"):
            self._write("decoded")
        if not asked.get("do_remote_decode"):
            return None
        assert (request.max_tokens, request.stream) == (1, False)
        self._write("prefilled")
        return {"do_remote_prefill": True, "remote_engine_id": os.getpid()}

    async def chat(self, request: Any, _: Any = None) -> AsyncIterator[str | ChatCompletionResponse]:
        moved = self._moved(request)
        count = self._count(request.max_tokens)
        if request.stream:
            async for event in self._events(count):
                yield event
            return
        text = "" if moved else await self._whole(count)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        answer = {"choices": [choice], "usage": _USAGE, "kv_transfer_params": moved}
        yield ChatCompletionResponse(model=self._model_id, **answer)

    async def completions(self, request: Any, _: Any = None) -> AsyncIterator[CompletionResponse]:
        moved = self._moved(request)
        text = "" if moved else await self._whole(self._count(request.max_tokens))
        choice = {"index": 0, "text": f"{request.prompt}: {text}", "finish_reason": "stop"}
        yield CompletionResponse(model=self._model_id, choices=[choice], usage=_USAGE, kv_transfer_params=moved)

    async def reset_prefix_cache(self) -> None:
        return None


async def _disconnected(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.05)
