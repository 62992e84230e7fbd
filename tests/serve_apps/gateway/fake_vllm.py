"""An upstream that answers as vLLM 0.29 does, field for field, without a model: every path, streamed or whole."""

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

from tests.serve_apps.gateway.servers import Answer

WORDS = ("Paris", " is", " the", " capital", ".")
USAGE = {"prompt_tokens": 9, "total_tokens": 14, "completion_tokens": 5, "prompt_tokens_details": None}
#: A prompt with this in it is too long for the model.
TOO_LONG = "too long"
_JSON = {"content-type": "application/json"}
_SSE = {"content-type": "text/event-stream; charset=utf-8"}


async def vllm(answer: Answer) -> None:
    """Answer the request as vLLM would."""
    received = answer.upstream.received[-1]
    path = received.path.removeprefix("/internal/chat")
    if path.startswith("/v1/audio/"):
        await _whole(answer, {"text": "Paris is the capital.", "usage": {"type": "duration", "seconds": 3}})
        return
    request: dict[str, Any] = json.loads(received.body)
    if TOO_LONG in json.dumps(request):
        await _refuse(answer, path)
    elif path in _STREAMS and request.get("stream"):
        await answer.begin(200, _SSE)
        for event in _STREAMS[path](request):
            await answer.chunk(event)
        await answer.chunk(b"", more=False)
    else:
        await _whole(answer, _WHOLE[path](request))


async def _whole(answer: Answer, document: dict[str, Any], status: int = 200) -> None:
    await answer.whole(status, json.dumps(document, separators=(",", ":")).encode(), _JSON)


async def _refuse(answer: Answer, path: str) -> None:
    error = {
        "message": "This model's maximum context length is 64 tokens. However, you requested 5 output tokens and your "
        "prompt contains at least 60 input tokens, for a total of at least 65 tokens. Please reduce the length of the "
        "input prompt or the number of requested output tokens.",
        "type": "BadRequestError",
        "param": "input_tokens",
        "code": 400,
    }
    if path == "/v1/messages":
        await _whole(answer, {"type": "error", "error": {"type": error["type"], "message": error["message"]}}, 400)
    else:
        await _whole(answer, {"error": error}, 400)


def _tool_calls(request: dict[str, Any]) -> list[dict[str, Any]]:
    name = request["tools"][0]["function"]["name"]
    return [{"id": "call_1", "type": "function", "function": {"name": name, "arguments": '{"city": "Paris"}'}}]


def _text(request: dict[str, Any]) -> str:
    structured = (request.get("response_format") or {}).get("type") == "json_schema"
    return '{"city":"Paris"}' if structured else "".join(WORDS)


def _chat(request: dict[str, Any]) -> dict[str, Any]:
    calls = _tool_calls(request) if request.get("tools") else []
    logprob = {"token": "Paris", "logprob": -0.1, "bytes": [80], "top_logprobs": []}
    choice = {
        "message": {
            "role": "assistant",
            "content": None if calls else _text(request),
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "tool_calls": calls,
            "reasoning": None,
        },
        "logprobs": {"content": [logprob]} if request.get("logprobs") else None,
        "finish_reason": "tool_calls" if calls else "stop",
        "stop_reason": None,
        "token_ids": None,
    }
    return {
        "id": "chatcmpl-8f2e0d7b4a4c4c5d",
        "object": "chat.completion",
        "created": 1764000000,
        "model": request["model"],
        "choices": [{"index": index, **choice} for index in range(request.get("n", 1))],
        "service_tier": None,
        "system_fingerprint": None,
        "usage": USAGE,
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "kv_transfer_params": None,
    }


def _chat_events(request: dict[str, Any]) -> list[bytes]:
    base = {"id": "chatcmpl-8f2e", "object": "chat.completion.chunk", "created": 1764000000, "model": request["model"]}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": word} for word in WORDS)]
    chunks: list[dict[str, Any]] = [
        base | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]} for delta in deltas
    ]
    chunks[-1]["choices"][0]["finish_reason"] = "stop"
    if (request.get("stream_options") or {}).get("include_usage"):
        chunks.append(base | {"choices": [], "usage": USAGE})
    return [*(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks), b"data: [DONE]\n\n"]


def _completion(request: dict[str, Any]) -> dict[str, Any]:
    prompt = request["prompt"]
    prompts = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    choice = {"text": "".join(WORDS), "logprobs": None, "finish_reason": "length", "stop_reason": None}
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1764000000,
        "model": request["model"],
        "choices": [{"index": index, **choice} for index in range(len(prompts) * request.get("n", 1))],
        "usage": USAGE,
    }


def _response(request: dict[str, Any], status: str = "completed") -> dict[str, Any]:
    text: dict[str, Any] = {"annotations": [], "text": "".join(WORDS), "type": "output_text", "logprobs": None}
    message = {"id": "msg_1", "content": [text], "role": "assistant", "status": "completed", "type": "message"}
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 0, "input_tokens_per_turn": [], "cached_tokens_per_turn": []},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0, "tool_output_tokens": 0},
        "total_tokens": 14,
    }
    return {
        "id": "resp_8f2e0d7b",
        "created_at": 1764000000,
        "incomplete_details": None,
        "instructions": None,
        "metadata": None,
        "model": request["model"],
        "object": "response",
        "output": [message] if status == "completed" else [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "background": False,
        "max_output_tokens": 55,
        "status": status,
        "text": None,
        "truncation": "disabled",
        "usage": usage if status == "completed" else None,
        "user": None,
    }


def _named(events: list[dict[str, Any]]) -> list[bytes]:
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


def _response_events(request: dict[str, Any]) -> list[bytes]:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    deltas = [
        {"type": "response.output_text.delta", "sequence_number": number, "delta": word, **place}
        for number, word in enumerate(WORDS, 1)
    ]
    begun = {"type": "response.created", "sequence_number": 0, "response": _response(request, "in_progress")}
    done = {"type": "response.completed", "sequence_number": len(WORDS) + 1, "response": _response(request)}
    return _named([begun, *deltas, done])


def _message(request: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "".join(WORDS)}],
        "model": request["model"],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "output_tokens": 5},
    }


def _message_events(request: dict[str, Any]) -> list[bytes]:
    begun = _message(request) | {"content": [], "stop_reason": None, "usage": {"input_tokens": 9, "output_tokens": 0}}
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS
    ]
    return _named(
        [
            {"type": "message_start", "message": begun},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            *deltas,
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"input_tokens": 9, "output_tokens": 5},
            },
            {"type": "message_stop"},
        ]
    )


def _embeddings(request: dict[str, Any]) -> dict[str, Any]:
    vector = [0.25, -0.5, 1.0]
    texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
    as_text = base64.b64encode(struct.pack("<3f", *vector)).decode()
    embedding = as_text if request.get("encoding_format") == "base64" else vector
    return {
        "id": "embd-1",
        "object": "list",
        "created": 1764000000,
        "model": request["model"],
        "data": [{"index": index, "object": "embedding", "embedding": embedding} for index in range(len(texts))],
        "usage": {"prompt_tokens": 4, "total_tokens": 4, "completion_tokens": 0, "prompt_tokens_details": None},
    }


def _rerank(request: dict[str, Any]) -> dict[str, Any]:
    results = [
        {"index": index, "document": {"text": text, "multi_modal": None}, "relevance_score": 1 / (index + 1)}
        for index, text in enumerate(request["documents"])
    ]
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    return {"id": "score-1", "model": request["model"], "usage": usage, "results": results}


def _score(request: dict[str, Any]) -> dict[str, Any]:
    data = [{"index": 0, "object": "score", "score": 0.5}]
    usage = {"prompt_tokens": 6, "total_tokens": 6, "completion_tokens": 0, "prompt_tokens_details": None}
    return {"id": "s", "object": "list", "created": 1, "model": request["model"], "data": data, "usage": usage}


_WHOLE: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/responses": _response,
    "/v1/messages": _message,
    "/v1/messages/count_tokens": lambda request: {"input_tokens": 9, "context_management": None},
    "/v1/embeddings": _embeddings,
    "/v1/rerank": _rerank,
    "/rerank": _rerank,
    "/v2/rerank": _rerank,
    "/v1/score": _score,
    "/score": _score,
    "/tokenize": lambda request: {"count": 3, "max_model_len": 64, "tokens": [1, 2, 3], "token_strs": None},
    "/detokenize": lambda request: {"prompt": "Paris"},
}
_STREAMS: dict[str, Callable[[dict[str, Any]], list[bytes]]] = {
    "/v1/chat/completions": _chat_events,
    "/v1/responses": _response_events,
    "/v1/messages": _message_events,
}
