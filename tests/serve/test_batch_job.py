"""A batch on accelerators of its own: the rendered RayJob on real Ray, Ray Data and Serve, with a fake engine."""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_apps.batch.config import ARGS_VARIABLE
from tests.serve.conftest import FAKE_ENGINE
from tests.serve.processes import processes
from tests.serve.waiting import until
from tools.demo.cluster import LocalCluster
from tools.demo.rendered import REPOSITORY, helm_template, ray_service
from tools.gotools import helm
from tools.ports import free_port

LINES = 240
#: From these lines on the model says nothing until the driver is killed, and then until its replica is: so neither the
#: job nor its first pass can be over before.
HELD_FROM_DRIVER, HELD_FROM_REPLICA = 80, 160
SETTINGS = [
    "overrides.models.chat.source=pvc://demo-models/fake",
    "batch.jobs.night.model=chat",
    "batch.jobs.night.input=pvc://nights/in.jsonl",
    "batch.jobs.night.output=pvc://nights/out",
    "batch.jobs.night.concurrency=32",
]


@pytest.fixture
def nights(tmp_path: Path) -> Path:
    """The claim, with an input of which one line is not the model's."""
    lines = [
        {
            "custom_id": f"line-{number}",
            "method": "POST",
            "url": "/v1/chat/completions" if number else "/v1/completions",  # which the fake engine has not
            "body": {"model": "chat", "messages": [{"role": "user", "content": f"ä-{number}"}], "max_tokens": 2},
        }
        for number in range(LINES)
    ]
    (tmp_path / "in.jsonl").write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    return tmp_path


@pytest.fixture
def cluster(nights: Path) -> Iterator[LocalCluster]:
    """What stands in for the RayCluster of the job."""
    files = [REPOSITORY / "values" / name for name in ("rag.yaml", "environments/local.yaml")]
    objects = helm_template(helm(), files, [*SETTINGS, f"gateway.port={free_port()}"])
    (job,) = (one for one in objects if one["kind"] == "RayJob")
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    args: dict[str, Any] = json.loads(next(one["value"] for one in head["env"] if one["name"] == ARGS_VARIABLE))
    for place in ("input", "output"):
        args[place] = args[place].replace("/mnt/batch/nights", str(nights))
    (nights / "secrets" / "internal").mkdir(parents=True)
    (nights / "secrets" / "internal" / "token").write_text("internal-secret")
    rendered = ray_service(objects)
    environment = {
        **rendered.environment,
        ARGS_VARIABLE: json.dumps(args),
        "LLM_SERVING_SECRETS": str(nights / "secrets"),
        "RAYLLM_VLLM_ENGINE_CLS": FAKE_ENGINE,
        "FAKE_TOKEN_S": "0.3",
        "FAKE_HELD_FROM": str(nights / "held-from"),
        "FAKE_JOURNAL": str(nights / "journal"),
        # Replicas of other tests' clusters have those from 30000 on.
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": "31001",
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": "32000",
    }
    (nights / "journal").touch()
    hold(nights, HELD_FROM_DRIVER)
    with LocalCluster(environment, rendered.labels, cpus=4) as running:
        yield running


def hold(nights: Path, number: int) -> None:
    """Have the model wait with its answers to lines from ``number`` on, and with no others."""
    new = nights / "held-from.new"
    new.write_text(str(number))
    new.replace(nights / "held-from")


def kept(nights: Path) -> set[str]:
    """The lines whose answers nobody can lose any more."""
    parts = [part.read_bytes().splitlines(keepends=True) for part in nights.glob("out/parts/*/*.jsonl")]
    return {json.loads(line)["custom_id"] for part in parts for line in part if line.endswith(b"\n")}


def asked(nights: Path) -> Counter[str]:
    """How often the model was asked each line."""
    words = (nights / "journal").read_text().split()
    return Counter(word.replace("ä", "line") for word in words if word.startswith("ä-"))


def running(cluster: LocalCluster, job: str) -> bool:
    """Whether a job goes on; one that failed says why."""
    told = cluster.job(job)
    assert not told.startswith("FAILED"), told
    return not told.startswith("SUCCEEDED")


def test_killed_drivers_and_replicas_lose_nothing_and_a_line_is_in_the_output_once(
    cluster: LocalCluster, nights: Path
) -> None:
    entrypoint = "python -m serve_apps.batch job"
    first = cluster.submit(entrypoint)
    until(lambda: (kept(nights), running(cluster, first)), lambda seen: bool(seen[0]))
    (driver,) = processes(entrypoint)
    driver.kill()
    kept_by_first = kept(nights)
    asked_by_first = asked(nights)
    hold(nights, HELD_FROM_REPLICA)
    second = cluster.submit(entrypoint)
    until(lambda: (kept(nights), running(cluster, second)), lambda seen: len(seen[0] - kept_by_first) >= 32)
    (replica,) = cluster.live_pids("chat", "VLLMServer:chat")
    kept_by_second = kept(nights)
    asked_by_second = asked(nights)
    os.kill(replica, signal.SIGKILL)
    hold(nights, LINES)
    until(lambda: cluster.job(second), lambda seen: not seen.startswith(("PENDING", "RUNNING")))
    assert cluster.job(second).startswith("SUCCEEDED"), cluster.job(second)
    output = [json.loads(line) for line in (nights / "out" / "output.jsonl").read_text().splitlines()]
    errors = [json.loads(line) for line in (nights / "out" / "errors.jsonl").read_text().splitlines()]
    assert Counter(one["custom_id"] for one in output) == Counter(f"line-{number}" for number in range(1, LINES))
    assert [(one["custom_id"], one["response"]["status_code"]) for one in errors] == [("line-0", 404)]
    assert {one["response"]["body"]["choices"][0]["message"]["content"] for one in output} == {"word0 word1 "}
    assert json.loads((nights / "out" / "batch.json").read_text())["request_counts"] == {
        "total": LINES,
        "completed": LINES - 1,
        "failed": 1,
    }
    assert not list(nights.glob("out/parts/*/*"))
    # What was kept when something was killed is never asked again. The model was never asked line 0.
    assert all(asked_by_second[line] for line in kept_by_second - {"line-0"})
    for lines, before in ((kept_by_first, asked_by_first), (kept_by_second, asked_by_second)):
        assert {line: asked(nights)[line] for line in lines} == {line: before[line] for line in lines}
