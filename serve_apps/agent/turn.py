"""One turn of a model: the pieces of its streamed completion, put together while its words go on to the caller."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from serve_apps.common import sse
from serve_apps.common.errors import UpstreamFailed

#: A model's own answers have a few; more are a loop in the model.
MAX_CALLS = 32


@dataclass(slots=True)
class AskedCall:
    """A call as the model wrote it."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Turn:
    """What a model said."""

    text: str = ""
    tool_calls: list[AskedCall] = field(default_factory=list)
    finish_reason: str | None = None
    usage: dict[str, int] = field(default_factory=dict)


async def take(payloads: AsyncIterator[bytes], turn: Turn, say: Callable[[str], None]) -> None:
    """Fill ``turn`` from the payloads of a stream, and ``say`` each piece of text as it comes.

    Raises:
        UpstreamFailed: the stream is broken, or ends with an error.
    """
    async for payload in payloads:
        if payload == sse.DONE:
            break
        try:
            chunk = orjson.loads(payload)
            if "error" in chunk:
                raise UpstreamFailed(
                    f"The model's answer broke off: {chunk['error'].get('message', 'no reason given')}"
                )
            turn.usage = _counts(chunk.get("usage")) or turn.usage
            for choice in chunk.get("choices", []):
                turn.finish_reason = choice.get("finish_reason") or turn.finish_reason
                delta = choice.get("delta") or {}
                if text := delta.get("content"):
                    turn.text += text
                    say(text)
                for piece in delta.get("tool_calls") or []:
                    _add(turn.tool_calls, piece)
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise UpstreamFailed("The model gave an answer that cannot be read.") from error


def _add(calls: list[AskedCall], piece: dict[str, Any]) -> None:
    index = int(piece["index"])
    if not 0 <= index < MAX_CALLS:
        raise ValueError(f"call number {index}")
    while len(calls) <= index:
        calls.append(AskedCall(id=f"call_{len(calls)}"))
    call, function = calls[index], piece.get("function") or {}
    call.id = piece.get("id") or call.id
    call.name += function.get("name") or ""
    call.arguments += function.get("arguments") or ""


def _counts(usage: Any) -> dict[str, int]:
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {name: int(usage.get(name) or 0) for name in names} if usage else {}
