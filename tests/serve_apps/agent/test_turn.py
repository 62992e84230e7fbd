import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serve_apps.agent.turn import AskedCall, Turn, take
from serve_apps.common.errors import UpstreamFailed


def taken(*chunks: Any) -> tuple[Turn, list[str]]:
    async def payloads() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()

    turn, said = Turn(), list[str]()
    asyncio.run(take(payloads(), turn, said.append))
    return turn, said


def delta(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def piece(index: int, **more: Any) -> dict[str, Any]:
    return delta(tool_calls=[{"index": index, **more}])


def test_words_go_on_as_they_come() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    turn, said = taken(
        delta(role="assistant", content=""),
        delta(content="It "),
        delta(content="rains."),
        delta("stop"),
        {"choices": [], "usage": usage},
        b"[DONE]",
    )
    assert (turn.text, said, turn.finish_reason, turn.usage) == ("It rains.", ["It ", "rains."], "stop", usage)


def test_calls_are_put_together_from_their_pieces() -> None:
    turn, _ = taken(
        piece(0, id="a", function={"name": "weather", "arguments": ""}),
        piece(0, function={"arguments": '{"city"'}),
        piece(1, function={"name": "sums", "arguments": "{}"}),
        piece(0, function={"arguments": ': "Bonn"}'}),
    )
    assert turn.tool_calls == [AskedCall("a", "weather", '{"city": "Bonn"}'), AskedCall("call_1", "sums", "{}")]


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        ({"error": {"message": "out of memory"}}, "The model's answer broke off: out of memory"),
        (b"<html>", "The model gave an answer that cannot be read."),
        ([], "The model gave an answer that cannot be read."),
        (piece(10**9), "The model gave an answer that cannot be read."),
    ],
)
def test_a_stream_that_breaks_is_the_models_failure(chunk: Any, message: str) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        taken(chunk)
    assert caught.value.message == message
