"""Batches of clients, beside everybody's requests."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import openai
from openai.types import Batch

from tests.e2e.release import Release
from tests.e2e.waiting import until

LINES = 20
#: Of a batch that Ray Data sends, as values/environments/ci.yaml has it.
LARGE = 100
#: Lines go after everybody's requests, on a busy CPU.
BATCH_TIMEOUT_S = 600


def lines(url: str, count: int = LINES, **body: Any) -> list[dict[str, Any]]:
    """Requests of a batch."""
    return [
        {"custom_id": f"line-{number}", "method": "POST", "url": url, "body": body | {"user": f"{number}"}}
        for number in range(count)
    ]


def jsonl(records: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


def check(output: str, count: int = LINES) -> None:
    """Every line is answered, once."""
    records = [json.loads(line) for line in output.splitlines()]
    assert Counter(one["custom_id"] for one in records) == Counter(f"line-{number}" for number in range(count))
    assert {one["response"]["status_code"] for one in records} == {200}


def begin(client: openai.OpenAI, count: int, max_tokens: int) -> Batch:
    """A batch of a client's, of so many chats."""
    messages = [{"role": "user", "content": "Count."}]
    return _begin(client, "/v1/chat/completions", count, model="chat", messages=messages, max_tokens=max_tokens)


def _begin(client: openai.OpenAI, endpoint: Any, count: int, **body: Any) -> Batch:
    file = client.files.create(file=("requests.jsonl", jsonl(lines(endpoint, count, **body)).encode()), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")


def finish(client: openai.OpenAI, batch: Batch, count: int) -> Batch:
    """The batch, once it is over and has answered every line."""
    ended = until(
        "the batch is over",
        lambda: client.batches.retrieve(batch.id),
        lambda seen: seen.status in ("completed", "failed", "expired", "cancelled"),
        BATCH_TIMEOUT_S,
    )
    assert (ended.status, ended.errors) == ("completed", None)
    check(client.files.content(ended.output_file_id or "").text, count)
    return ended


def test_a_batch_of_a_client_is_answered_line_by_line(
    release: Release, record_property: Callable[[str, object], None]
) -> None:
    """OpenAI's own client: a file goes in, an output with every line comes out."""
    with release.client(openai.DEFAULT_MAX_RETRIES) as client:
        ended = finish(client, begin(client, LINES, max_tokens=2), LINES)
    record_property("measured", f"{LINES} lines in {(ended.completed_at or 0) - ended.created_at} s")


def test_a_large_batch_is_sent_by_ray_data_beside_the_gateway(
    release: Release, record_property: Callable[[str, object], None]
) -> None:
    """As many lines as `batch.rayData` has as the least, sent by processes in the pods of gateway and pipelines."""
    with release.client(openai.DEFAULT_MAX_RETRIES) as client:
        batch = _begin(client, "/v1/embeddings", LARGE, model="embedder", input="a cat on a mat")
        ended = finish(client, batch, LARGE)
    # Ray Data leaves it behind, wherever it has worked.
    processes = "import pathlib; print(*(one.read_text() for one in pathlib.Path('/proc').glob('[0-9]*/cmdline')))"
    told = release.kubectl("exec", release.pod("cpu"), "--container=ray", "--", "python", "-c", processes)
    assert "ray::_StatsActor" in told
    record_property("measured", f"{LARGE} lines in {(ended.completed_at or 0) - ended.created_at} s")
