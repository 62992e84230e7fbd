"""Batches on the cluster: turned on in the running service, and driven by OpenAI's own client."""

import json
from collections import Counter
from collections.abc import Callable

import openai

from tests.e2e.release import CHANGE_TIMEOUT_S, Release
from tests.e2e.test_in_place import ANOTHER_MODEL
from tests.e2e.waiting import until

#: A folder of the documents' claim: a claim that no pod has yet would roll the cluster.
BATCHES = ("batch.enabled=true", "batch.storage=file:///var/lib/llm-serving/batches", "batch.concurrency=4")
LINES = 20
#: Lines go after everybody's requests, on a busy CPU.
BATCH_TIMEOUT_S = 300


def test_a_batch_is_answered_line_by_line(release: Release, record_property: Callable[[str, object], None]) -> None:
    """An upgrade turns batches on, no pod goes; a file goes in, an output with every line comes out."""
    before = release.running()
    release.upgrade(*ANOTHER_MODEL, *BATCHES)
    until("batches run", lambda: release.statuses().get("batch"), lambda status: status == "RUNNING", CHANGE_TIMEOUT_S)
    release.wait_until_running()
    lines = [
        {
            "custom_id": f"line-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "chat", "messages": [{"role": "user", "content": "Count."}], "max_tokens": 2},
        }
        for number in range(LINES)
    ]
    with (
        release.forwarded() as http,
        openai.OpenAI(base_url=f"{http.base_url}/v1", api_key=release.key()) as client,
    ):

        def there() -> bool:
            """Whether the gateway's route leads to them already."""
            try:
                client.files.list()
            except openai.NotFoundError:
                return False
            return True

        until("the gateway knows batches", there, bool, CHANGE_TIMEOUT_S)
        content = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        file = client.files.create(file=("requests.jsonl", content), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        ended = until(
            "the batch is over",
            lambda: client.batches.retrieve(batch.id),
            lambda seen: seen.status in ("completed", "failed", "expired", "cancelled"),
            BATCH_TIMEOUT_S,
        )
        assert (ended.status, ended.errors) == ("completed", None)
        records = [json.loads(line) for line in client.files.content(ended.output_file_id or "").text.splitlines()]
    assert Counter(record["custom_id"] for record in records) == Counter(line["custom_id"] for line in lines)
    assert {record["response"]["status_code"] for record in records} == {200}
    assert release.running().pods == before.pods
    record_property("measured", f"{LINES} lines in {(ended.completed_at or 0) - ended.created_at} s")
    release.upgrade(*ANOTHER_MODEL)
    until("batches are gone", release.statuses, lambda statuses: "batch" not in statuses, CHANGE_TIMEOUT_S)
    release.wait_until_running()
