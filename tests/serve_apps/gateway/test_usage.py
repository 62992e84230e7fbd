import json
import random
from typing import Any

import pytest

from serve_apps.gateway.usage import MAX_HELD_BYTES, Tokens, reader

CHAT = "/v1/chat/completions"
USAGE = {"prompt_tokens": 9, "total_tokens": 21, "completion_tokens": 12, "prompt_tokens_details": None}


def chunk(**fields: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "chat", **fields}


def event(document: object, name: str = "", end: str = "\n\n") -> bytes:
    return (f"event: {name}\n" * bool(name) + f"data: {json.dumps(document, separators=(',', ':'))}{end}").encode()


def token(text: str) -> bytes:
    return event(chunk(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}]))


USAGE_EVENT = event(chunk(choices=[], usage=USAGE))
DONE = b"data: [DONE]\n\n"
STREAM = [token("Paris"), token(' "usage": {"prompt_tokens": 99}'), token("."), USAGE_EVENT, DONE]


def passed(pieces: list[bytes], *, path: str = CHAT, stream: bool = True, hide: bool = False) -> tuple[bytes, Any]:
    """What passes of an answer in ``pieces``, and the tokens it told."""
    seen = reader(path, stream, hide)
    out = b"".join([seen.feed(piece) for piece in pieces])
    return out + seen.end(), seen.tokens()


def cuts(answer: bytes, seed: int) -> list[bytes]:
    """``answer`` cut in pieces, anywhere."""
    chance = random.Random(seed)
    at = sorted(chance.sample(range(1, len(answer)), min(len(answer) - 1, chance.choice([1, 2, 5, 40]))))
    return [answer[start:end] for start, end in zip([0, *at], [*at, len(answer)], strict=True)]


UNARY = [
    pytest.param(CHAT, {"id": "1", "choices": [{"message": {"content": "x"}}], "usage": USAGE}, (9, 12), id="chat"),
    pytest.param(
        CHAT,
        {
            "choices": [{"logprobs": {"content": [{"token": "usage", "logprob": -1, "bytes": [1]}] * 50}}],
            "usage": USAGE,
            "prompt_token_ids": list(range(5000)),
        },
        (9, 12),
        id="followed-by-much",
    ),
    pytest.param(
        "/v1/rerank",
        {"id": "1", "model": "r", "usage": {"prompt_tokens": 7, "total_tokens": 7}, "results": [{"index": 1}] * 3000},
        (7, 0),
        id="rerank-first",
    ),
    pytest.param("/rerank", {"results": [], "usage": {"total_tokens": 7}}, (7, 0), id="rerank-sum-only"),
    pytest.param(
        "/v1/embeddings",
        {
            "data": [{"embedding": [0.1] * 4000}],
            "usage": {"prompt_tokens": 5, "total_tokens": 5, "completion_tokens": 0},
        },
        (5, 0),
        id="embeddings",
    ),
    pytest.param("/score", {"data": [], "usage": {"prompt_tokens": 6, "completion_tokens": None}}, (6, 0), id="score"),
    pytest.param(
        "/v1/responses",
        {
            "output": [],
            "usage": {
                "input_tokens": 9,
                "input_tokens_details": {"cached_tokens": 3, "input_tokens_per_turn": [9]},
                "output_tokens": 12,
                "total_tokens": 21,
            },
            "user": None,
        },
        (9, 12),
        id="responses",
    ),
    pytest.param(
        "/v1/messages",
        {"content": [], "usage": {"input_tokens": 4, "output_tokens": 12, "cache_read_input_tokens": 5}},
        (9, 12),
        id="messages-with-a-cache",
    ),
]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(("path", "answer", "tokens"), UNARY)
def test_an_answers_usage_is_read_however_it_is_cut(
    path: str, answer: dict[str, Any], tokens: tuple[int, int], indent: int | None
) -> None:
    body = json.dumps(answer, indent=indent).encode()
    for seed in range(40):
        assert passed(cuts(body, seed), path=path, stream=False) == (body, Tokens(*tokens))


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"message": {"content": '{"usage":{"prompt_tokens":1}}'}}]},
        {"usage": None},
        {"usage": {"type": "duration", "seconds": 3}},
        {"usage": {"prompt_tokens": "9", "completion_tokens": -1, "total_tokens": 1e400}},
        {"usage": {"prompt_tokens": 2**53}},
        {"error": {"message": "no"}},
        {"tokens": [1, 2], "count": 2},
    ],
)
def test_an_answer_without_a_usage_tells_none(answer: dict[str, Any]) -> None:
    assert passed([json.dumps(answer).encode()], stream=False)[1] is None


def test_never_is_more_held_of_an_answer_than_an_object_may_have() -> None:
    seen = reader(CHAT, False, False)
    for piece in [b'{"usage":{"a":"', *[b"x" * 1000] * 100]:
        seen.feed(piece)
        assert len(seen._rest) <= MAX_HELD_BYTES


@pytest.mark.parametrize("seed", range(60))
def test_a_streams_usage_is_read_however_it_is_cut(seed: int) -> None:
    assert passed(cuts(b"".join(STREAM), seed)) == (b"".join(STREAM), Tokens(9, 12))


def test_of_a_stream_that_tells_its_usage_with_every_token_the_last_counts() -> None:
    events = [event(chunk(choices=[{}], usage={"prompt_tokens": 9, "completion_tokens": n})) for n in range(1, 5)]
    assert passed(events)[1] == Tokens(9, 4)


def test_a_broken_stream_tells_what_it_told_so_far() -> None:
    events = [event(chunk(choices=[{}], usage={"prompt_tokens": 9, "completion_tokens": n})) for n in range(1, 5)]
    assert passed([*events[:2], events[2][:60]])[1] == Tokens(9, 2)


@pytest.mark.parametrize("seed", range(20))
def test_a_responses_stream_tells_it_when_it_is_completed(seed: int) -> None:
    usage = {"input_tokens": 9, "output_tokens": 12, "total_tokens": 21}
    events = [
        event({"type": "response.created", "response": {"output": [], "usage": None}}, "response.created"),
        event({"type": "response.output_text.delta", "delta": "x"}, "response.output_text.delta"),
        event({"type": "response.completed", "response": {"output": ["x"] * 999, "usage": usage, "user": None}}),
    ]
    answer = b"".join(events)
    assert passed(cuts(answer, seed), path="/v1/responses", hide=True) == (answer, Tokens(9, 12))


@pytest.mark.parametrize("seed", range(20))
def test_a_messages_stream_tells_it_in_two_places(seed: int) -> None:
    events = [
        event(
            {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}, "message_start"
        ),
        event({"type": "content_block_delta", "delta": {"text": "x"}}, "content_block_delta"),
        event({"type": "message_delta", "usage": {"output_tokens": 12}}, "message_delta"),
        event({"type": "message_stop"}, "message_stop"),
    ]
    answer = b"".join(events)
    assert passed(cuts(answer, seed), path="/v1/messages", hide=True) == (answer, Tokens(9, 12))


WITHOUT = b"".join([*STREAM[:3], DONE])


def test_a_usage_nobody_asked_for_is_withheld_and_read() -> None:
    assert passed(STREAM, hide=True) == (WITHOUT, Tokens(9, 12))


def test_it_is_when_it_shares_a_chunk_with_other_events() -> None:
    assert passed([STREAM[0] + STREAM[1], STREAM[2] + USAGE_EVENT + DONE], hide=True) == (WITHOUT, Tokens(9, 12))


@pytest.mark.parametrize("seed", range(200))
def test_it_is_however_it_is_cut(seed: int) -> None:
    assert passed(cuts(b"".join(STREAM), seed), hide=True) == (WITHOUT, Tokens(9, 12))


@pytest.mark.parametrize("end", ["\r\n\r\n", "\r\r"])
def test_it_is_with_other_line_ends(end: str) -> None:
    events = [piece.replace(b"\n\n", end.encode()) for piece in STREAM]
    for seed in range(40):
        assert passed(cuts(b"".join(events), seed), hide=True) == (b"".join([*events[:3], events[4]]), Tokens(9, 12))


def test_a_usage_somebody_asked_for_passes() -> None:
    assert passed(STREAM, hide=False) == (b"".join(STREAM), Tokens(9, 12))


def test_an_event_with_a_usage_and_a_choice_passes() -> None:
    last = event(chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=USAGE))
    assert passed([last, DONE], hide=True) == (last + DONE, Tokens(9, 12))


def test_an_event_whose_usage_is_null_passes() -> None:
    first = event(chunk(choices=[], usage=None))
    assert passed([first, USAGE_EVENT, DONE], hide=True) == (first + DONE, Tokens(9, 12))


def test_a_token_passes_at_once_even_where_nothing_may_be_told() -> None:
    seen = reader(CHAT, True, True)
    assert [seen.feed(piece) for piece in STREAM] == [*STREAM[:3], b"", DONE]


def test_half_an_event_of_a_broken_stream_passes_in_the_end() -> None:
    assert passed([STREAM[0], STREAM[1][:30]], hide=True)[0] == STREAM[0] + STREAM[1][:30]


def test_a_long_event_is_not_held_back_whole() -> None:
    long = token("x" * 100_000)
    seen = reader(CHAT, True, True)
    out = b""
    for start in range(0, len(long), 1000):
        out += seen.feed(long[start : start + 1000])
        assert len(seen._rest) <= MAX_HELD_BYTES + 1000
    assert out + seen.end() == long


@pytest.mark.parametrize(
    "answer", [b"", b"\n\n", b"data\n\n", b'data: {"usage"\n\n', b'data: "usage"\n\n', b"\xff\n\n"]
)
def test_whatever_an_upstream_sends_passes(answer: bytes) -> None:
    assert passed([answer], hide=True) == (answer, None)
    assert passed([answer], hide=False) == (answer, None)


def test_an_answer_made_to_be_slow_to_search_passes() -> None:
    piece = b'"usage":{' * 7000  # a search that goes back would take minutes
    assert passed([piece]) == (piece, None)
