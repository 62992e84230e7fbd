"""The answer when nothing relevant was found, in the shape of a model's."""

import time
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import orjson

from serve_apps.common import sse

#: What is said. A model is not asked: a small one would make something up.
UNFOUND = "I do not know: the documents hold nothing on this question."
#: What is said when a search was down: it might have found something.
UNFOUND_IN_PART = "I do not know: only a part of the search worked, and it found nothing on this question."

_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def completion(text: str) -> dict[str, Any]:
    """A chat completion."""
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return {**_head("chat.completion"), "choices": choices, "usage": _USAGE}


async def payloads(text: str, body: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """The payloads of a streamed one; with usage if the request asks for it."""
    head = _head("chat.completion.chunk")
    for delta, finish_reason in (({"role": "assistant", "content": text}, None), ({}, "stop")):
        yield orjson.dumps({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        yield orjson.dumps({**head, "choices": [], "usage": _USAGE})
    yield sse.DONE


def _head(kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid4().hex}", "object": kind, "created": int(time.time()), "model": ""}
