"""A batch on real Serve, through the gateway: a model that refuses what is more than it works on."""

import json

from tests.serve.conftest import Service
from tests.serve.waiting import until


def test_a_batch_larger_than_a_model_works_on_is_answered_line_by_line(service: Service) -> None:
    lines = [
        {
            "custom_id": f"line-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "chat", "messages": [{"role": "user", "content": "count"}], "max_tokens": 2},
        }
        for number in range(24)
    ]
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    with service.client() as client:
        file = client.files.create(file=("requests.jsonl", content), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        ended = until(lambda: client.batches.retrieve(batch.id), lambda seen: seen.status in ("completed", "failed"))
        assert ended.request_counts
        assert (ended.status, ended.request_counts.completed) == ("completed", 24)
        records = client.files.content(ended.output_file_id or "").text.splitlines()
    answers = {record["custom_id"]: record["response"] for record in map(json.loads, records)}
    assert len(answers) == len(records) == 24
    assert {answer["status_code"] for answer in answers.values()} == {200}
