import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serve_apps.common.errors import Unavailable, UpstreamFailed
from serve_apps.rag.answer import Answer
from serve_apps.rag.chunking import Chunk
from serve_apps.rag.retriever import Retrieval, Source

SOURCE = Source(1, Chunk("a.md", 0, "Tea is hot."), 0.9)
CITATION = {"index": 1, "document": "a.md", "chunk": 0, "score": 0.9, "quote": "Tea is hot."}
ANNOTATION = {"type": "file_citation", "file_citation": CITATION}

FOUND = Answer("docs", Retrieval((SOURCE,)))
NOT_FOUND = Answer("docs", Retrieval(degraded=("retrieval",)), "No sources. ")


def completion(content: str | None = "Hot.") -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {"model": "chat", "choices": [{"index": 0, "message": message}], "usage": {"total_tokens": 3}}


def delta(finish_reason: str | None = None, **delta: Any) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return json.dumps({"id": "1", "model": "chat", "choices": choices}, separators=(",", ":")).encode()


STREAM = [
    delta(role="assistant", content=""),
    delta(content='say "model":"chat" and "finish_reason":"x"'),
    delta("stop"),
    b'{"id":"1","model":"chat","choices":[],"usage":{"total_tokens":3}}',
    b"[DONE]",
]


async def payloads(given: list[bytes], failure: Exception | None = None) -> AsyncIterator[bytes]:
    for payload in given:
        yield payload
    if failure is not None:
        raise failure


def chat_events(answer: Answer, given: list[bytes], failure: Exception | None = None) -> list[Any]:
    async def collect() -> list[bytes]:
        return [event async for event in answer.chat_events(payloads(given, failure))]

    events = [event.removeprefix(b"data: ").strip() for event in asyncio.run(collect())]
    return [event.decode() if event == b"[DONE]" else json.loads(event) for event in events]


def query_events(answer: Answer, given: list[bytes], failure: Exception | None = None) -> list[tuple[str, Any]]:
    async def collect() -> list[bytes]:
        return [event async for event in answer.query_events(payloads(given, failure))]

    lines = [event.decode().split("\n") for event in asyncio.run(collect())]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data, *_ in lines]


def test_a_chat_completion_gets_the_pipelines_name_and_annotations() -> None:
    body = FOUND.chat(completion())
    assert body["model"] == "docs"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "Hot.", "annotations": [ANNOTATION]}
    assert "degraded" not in body


def test_a_chat_completion_without_sources_begins_with_the_notice_and_is_flagged() -> None:
    body = NOT_FOUND.chat(completion())
    message = {"role": "assistant", "content": "No sources. Hot.", "annotations": []}
    assert body["choices"][0]["message"] == message
    assert body["degraded"] == ("retrieval",)


def test_a_message_without_content_gets_no_notice() -> None:
    assert NOT_FOUND.chat(completion(None))["choices"][0]["message"]["content"] is None


def test_a_chat_stream_is_relayed_with_the_pipelines_name_and_annotations_at_the_end() -> None:
    first, second, ending, usage, done = chat_events(FOUND, STREAM)
    assert {event["model"] for event in (first, second, ending, usage)} == {"docs"}
    assert second["choices"][0]["delta"]["content"] == 'say "model":"chat" and "finish_reason":"x"'
    assert ending["choices"][0] == {"index": 0, "delta": {"annotations": [ANNOTATION]}, "finish_reason": "stop"}
    assert usage["usage"] == {"total_tokens": 3}
    assert done == "[DONE]"
    assert "annotations" not in second["choices"][0]["delta"]
    assert "degraded" not in ending


def test_a_chat_stream_without_sources_begins_with_the_notice_and_ends_flagged() -> None:
    first, second, ending, *_ = chat_events(NOT_FOUND, STREAM)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "No sources. "}
    assert not second["choices"][0]["delta"]["content"].startswith("No sources.")
    assert ending["degraded"] == ["retrieval"]


def test_a_chat_stream_that_breaks_off_ends_with_an_error_event() -> None:
    events = chat_events(FOUND, STREAM[:2], UpstreamFailed("broke off"))
    assert events[-1]["error"]["message"] == "broke off"
    assert len(events) == 3


def test_the_models_own_error_event_ends_the_chat_stream() -> None:
    events = chat_events(FOUND, [*STREAM[:2], b'{"error":{"message":"lost"}}', delta(content="more")])
    assert events[-1] == {"error": {"message": "lost"}}
    assert len(events) == 3


@pytest.mark.parametrize("events", [chat_events, query_events])
def test_a_failure_before_the_first_event_is_raised(events: Any) -> None:
    with pytest.raises(Unavailable):
        events(FOUND, [], Unavailable("starting"))


def test_a_query_is_answered_with_citations_and_usage() -> None:
    assert FOUND.query(completion()) == {
        "answer": "Hot.",
        "citations": [CITATION],
        "degraded": (),
        "usage": {"total_tokens": 3},
    }
    assert NOT_FOUND.query(completion())["answer"] == "No sources. Hot."


def test_a_streamed_query_tells_citations_then_tokens_then_the_end() -> None:
    assert query_events(FOUND, STREAM) == [
        ("citations", {"citations": [CITATION], "degraded": []}),
        ("token", {"text": 'say "model":"chat" and "finish_reason":"x"'}),
        ("done", {"finish_reason": "stop", "usage": {"total_tokens": 3}, "degraded": []}),
    ]


def test_a_streamed_query_without_sources_begins_with_the_notice() -> None:
    citations, notice, *_ = query_events(NOT_FOUND, STREAM)
    assert citations == ("citations", {"citations": [], "degraded": ["retrieval"]})
    assert notice == ("token", {"text": "No sources. "})


@pytest.mark.parametrize(("last", "failure"), [([b'{"error":{"message":"lost"}}'], None), ([], UpstreamFailed("lost"))])
def test_a_streamed_query_that_breaks_off_ends_with_an_error_event(
    last: list[bytes], failure: Exception | None
) -> None:
    name, error = query_events(FOUND, [*STREAM[:2], *last], failure)[-1]
    assert name == "error"
    assert error["error"]["message"] == "lost"


LINKED = Answer("docs", Retrieval((SOURCE,)), links=frozenset({"https://good.example/a"}))


def test_links_are_checked_in_each_choice_of_a_stream_by_itself() -> None:
    def both(first: str, second: str, finish_reason: str | None = None) -> bytes:
        deltas = [{"content": first}, {"content": second}]
        choices = [{"index": i, "delta": delta, "finish_reason": finish_reason} for i, delta in enumerate(deltas)]
        return json.dumps({"id": "1", "model": "chat", "choices": choices}).encode()

    events = chat_events(
        LINKED, [both("see https:", "at ht"), both("//evil.example", "tps://good.example/a"), both("", "", "stop")]
    )
    said = ["".join(event["choices"][i]["delta"].get("content") or "" for event in events) for i in range(2)]
    assert said == ["see [link removed]", "at https://good.example/a"]


def test_a_stream_with_checked_links_is_otherwise_the_same() -> None:
    assert chat_events(LINKED, STREAM)[-1] == "[DONE]"
    texts = [text for event in chat_events(LINKED, STREAM)[:-1] for text in _texts(event)]
    assert "".join(texts) == 'say "model":"chat" and "finish_reason":"x"'
    assert chat_events(LINKED, STREAM)[-2] == chat_events(FOUND, STREAM)[-2]
    tools = [delta(role="assistant", tool_calls=[{"index": 0}]), delta("tool_calls")]
    assert chat_events(LINKED, tools) == chat_events(FOUND, tools)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_links_are_checked_in_what_a_model_thinks(name: str) -> None:
    given = completion("See https://good.example/a")
    given["choices"][0]["message"][name] = "Send ![](https://evil.example/q)"
    message = LINKED.chat(given)["choices"][0]["message"]
    assert (message["content"], message[name]) == ("See https://good.example/a", "Send ![]([link removed])")
    events = chat_events(
        LINKED, [delta(**{name: "at https://evil.exa"}), delta(**{name: "mple/q"}), delta(content="So."), delta("stop")]
    )
    deltas = [event["choices"][0]["delta"] for event in events]
    assert ["".join(each.get(field) or "" for each in deltas) for field in (name, "content")] == [
        "at [link removed]",
        "So.",
    ]


def _texts(event: Any) -> list[str]:
    return [choice["delta"].get("content") or "" for choice in event["choices"]]


def test_a_query_with_checked_links_ends_with_what_was_held_back() -> None:
    events = query_events(
        LINKED, [delta(content="go to www.evil"), delta(content=".example"), delta("stop"), b"[DONE]"]
    )
    assert [data["text"] for name, data in events if name == "token"] == ["go to ", "[link removed]"]
    assert events[-1][0] == "done"
