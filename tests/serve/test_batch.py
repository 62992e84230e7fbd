"""Batches on real Serve, through the gateway: sent by the replica, and large ones by Ray Data."""

import json
import os
import signal
from collections import Counter
from typing import Any

import openai
import pytest
from openai.types import Batch

from tests.serve.conftest import Service
from tests.serve.processes import processes
from tests.serve.waiting import until

OVER = ("completed", "failed", "expired", "cancelled")
CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
#: As Ray names the processes of Ray Data's that a batch has.
DRIVER, SENDER = "ray::_Driver", "ray::MapWorker"


def start(client: openai.OpenAI, endpoint: Any, bodies: list[dict[str, Any]]) -> Batch:
    """A batch of these requests."""
    lines = [
        {"custom_id": f"line-{number}", "method": "POST", "url": endpoint, "body": body}
        for number, body in enumerate(bodies)
    ]
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")


def state(client: openai.OpenAI, batch: Batch) -> Batch:
    """How a batch stands; as it stood where no replica is there to ask."""
    try:
        return client.batches.retrieve(batch.id)
    except (openai.APIStatusError, openai.APIConnectionError):
        return batch


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    return until(lambda: state(client, batch), lambda seen: seen.status in OVER)


def answers(client: openai.OpenAI, batch: Batch) -> dict[str, dict[str, Any]]:
    """What is in the output by custom id; each line is there once."""
    records = [json.loads(line) for line in client.files.content(batch.output_file_id or "").text.splitlines()]
    found = {record["custom_id"]: record["response"] for record in records}
    assert len(found) == len(records)
    return found


def completed(batch: Batch) -> int:
    return batch.request_counts.completed if batch.request_counts else 0


def chat(text: str = "count") -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": text}], "max_tokens": 2}


def test_a_batch_larger_than_a_model_works_on_is_answered_line_by_line(service: Service) -> None:
    with service.client() as client:
        over = ended(client, start(client, CHAT, [chat()] * 24))
        assert (over.status, completed(over)) == ("completed", 24)
        found = answers(client, over)
    assert len(found) == 24
    assert {answer["status_code"] for answer in found.values()} == {200}


def test_ray_data_sends_a_large_batch_and_lives_through_kills(service: Service) -> None:
    count = 3_000
    with service.client() as client:
        batch = start(client, EMBEDDINGS, [{"model": "embedder", "input": f"{number}"} for number in range(count)])
        until(lambda: state(client, batch), lambda seen: completed(seen) > 0)
        sender, _ = processes(SENDER)
        sender.kill()
        after_sender = completed(state(client, batch))
        until(lambda: state(client, batch), lambda seen: completed(seen) > after_sender)
        (driver,) = processes(DRIVER)
        (replica,) = service.cluster.live_pids("batch", "Batch")
        os.kill(replica, signal.SIGKILL)
        until(lambda: processes(DRIVER), lambda seen: driver not in seen)
        over = ended(client, batch)
        assert (over.status, completed(over), over.error_file_id) == ("completed", count, None)
        found = answers(client, over)
    assert found.keys() == {f"line-{number}" for number in range(count)}
    assert Counter(answer["status_code"] for answer in found.values()) == {200: count}
    assert until(lambda: processes(DRIVER) + processes(SENDER), lambda seen: not seen) == []


def test_a_cancelled_batch_leaves_no_process_of_ray_datas(service: Service) -> None:
    count = 400
    with service.client() as client:
        batch = start(client, CHAT, [chat()] * count)
        until(lambda: state(client, batch), lambda seen: completed(seen) > 0)
        assert processes(DRIVER)
        client.batches.cancel(batch.id)
        over = ended(client, batch)
        assert over.status == "cancelled"
        assert len(answers(client, over)) == completed(over) < count
    assert until(lambda: processes(DRIVER) + processes(SENDER), lambda seen: not seen) == []


@pytest.mark.parametrize(("lines", "by_ray_data"), [(99, False), (100, True)])
def test_only_batches_of_so_many_lines_are_ray_datas(service: Service, lines: int, by_ray_data: bool) -> None:
    seen = False
    with service.client() as client:
        batch = start(client, EMBEDDINGS, [{"model": "embedder", "input": "text"}] * lines)
        while (now := state(client, batch)).status not in OVER:
            seen = seen or bool(processes(DRIVER))
        assert (now.status, completed(now)) == ("completed", lines)
    assert seen == by_ray_data
