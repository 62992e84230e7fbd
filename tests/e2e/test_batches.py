"""Batches: those of clients beside everybody's requests, and one on a cluster that KubeRay makes for it."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai.types import Batch

from tests.e2e.release import Release
from tests.e2e.waiting import until

LINES = 20
#: Lines go after everybody's requests, on a busy CPU.
BATCH_TIMEOUT_S = 600
#: A cluster, an engine and a driver start before the first line.
JOB_TIMEOUT_S = 1200
#: For pods without a request.
GONE_TIMEOUT_S = 600
#: The documents' claim, as the pods with the gateway and the pipelines see it.
CLAIM = "/var/lib/llm-serving"
NIGHT = (
    "batch.jobs.night.model=embedder",
    "batch.jobs.night.input=pvc://pipelines-data/nights/in.jsonl",
    "batch.jobs.night.output=pvc://pipelines-data/nights/out",
    "batch.jobs.night.concurrency=8",
)


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
    requests = lines("/v1/chat/completions", count, model="chat", messages=messages, max_tokens=max_tokens)
    file = client.files.create(file=("requests.jsonl", jsonl(requests).encode()), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")


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


@pytest.fixture(scope="module")
def night(release: Release) -> None:
    """A job of its own, begun: its cluster starts while clients have their batches."""
    folder = f"{CLAIM}/nights"
    program = f"import os, sys; os.makedirs('{folder}', exist_ok=True)"
    program += f"; open('{folder}/in.jsonl', 'w').write(sys.stdin.read())"
    requests = jsonl(lines("/v1/embeddings", model="embedder", input="a cat on a mat"))
    release.kubectl("exec", "--stdin", release.pod("cpu"), *_python(program), input=requests)
    release.upgrade(*NIGHT)


@pytest.mark.usefixtures("night")
def test_a_batch_of_a_client_is_answered_line_by_line(
    release: Release, record_property: Callable[[str, object], None]
) -> None:
    """OpenAI's own client: a file goes in, an output with every line comes out."""
    with (
        release.forwarded() as http,
        openai.OpenAI(base_url=f"{http.base_url}/v1", api_key=release.key()) as client,
    ):
        ended = finish(client, begin(client, LINES, max_tokens=2), LINES)
    record_property("measured", f"{LINES} lines in {(ended.completed_at or 0) - ended.created_at} s")


@pytest.mark.usefixtures("night")
def test_a_job_has_a_cluster_of_its_own_while_it_runs(
    release: Release, record_property: Callable[[str, object], None]
) -> None:
    """A RayJob: KubeRay makes a cluster for it, all lines are in its folder, the release stays; the cluster goes."""
    before = release.running()
    (job,) = release.objects("rayjobs")
    name = job["metadata"]["name"]

    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(release.kubectl("get", f"rayjob/{name}", "-o=json")).get("status", {})
        return found

    ended = until(
        "the job is over",
        status,
        lambda seen: seen.get("jobDeploymentStatus") in ("Complete", "Failed"),
        JOB_TIMEOUT_S,
    )
    assert ended["jobStatus"] == "SUCCEEDED", ended
    check(_read(release, "output.jsonl"))
    assert json.loads(_read(release, "batch.json"))["status"] == "completed"
    assert release.running() == before
    release.upgrade()
    cluster = f"raycluster/{ended['rayClusterName']}"
    until(
        "its cluster is gone",
        lambda: release.kubectl("get", cluster, "--ignore-not-found", "--output=name"),
        lambda left: not left.strip(),
        GONE_TIMEOUT_S,
    )
    record_property("measured", f"{ended.get('startTime')} to {ended.get('endTime')}")


def _python(program: str) -> tuple[str, ...]:
    """What `kubectl exec` runs for a program in Python."""
    return ("--container=ray", "--", "python", "-c", program)


def _read(release: Release, file: str) -> str:
    """A file of the job's folder."""
    program = f"print(open('{CLAIM}/nights/out/{file}').read(), end='')"
    return release.kubectl("exec", release.pod("cpu"), *_python(program))
