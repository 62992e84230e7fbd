import asyncio
from typing import Any

import orjson
import pytest

from serve_apps.rag.unfound import UNFOUND, completion, payloads


def streamed(body: dict[str, Any]) -> list[bytes]:
    async def read() -> list[bytes]:
        return [payload async for payload in payloads(UNFOUND, body)]

    return asyncio.run(read())


def test_it_is_a_whole_answer() -> None:
    answer = completion(UNFOUND)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": UNFOUND}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == 0


@pytest.mark.parametrize("body", [{}, {"stream_options": None}])
def test_its_stream_begins_says_and_ends(body: dict[str, Any]) -> None:
    first, last, done = streamed(body)
    assert orjson.loads(first)["choices"][0]["delta"] == {"role": "assistant", "content": UNFOUND}
    assert orjson.loads(last)["choices"][0]["finish_reason"] == "stop"
    assert done == b"[DONE]"


def test_its_stream_has_usage_where_it_is_asked_for() -> None:
    *_, usage, _ = streamed({"stream_options": {"include_usage": True}})
    assert (orjson.loads(usage)["choices"], orjson.loads(usage)["usage"]["total_tokens"]) == ([], 0)
