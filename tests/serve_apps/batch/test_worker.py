"""Work that goes on: after a kill, beside another replica, past the end of the window."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serve_apps.batch.config import BatchSettings, RayData
from serve_apps.batch.execution import KEEP_ANSWERS
from serve_apps.batch.objects import new_id
from serve_apps.batch.worker import next_of
from tests.serve_apps.batch.conftest import BatchApp, client_of, jsonl, line
from tests.serve_apps.batch.fake_gateway import FakeGateway, echo, refuses
from tests.serve_apps.batch.replica import SHORT_LEASE_S, Recorded, replica_of
from tests.serve_apps.clock import Clock
from tests.serve_apps.gateway.redis import RedisServer
from tests.serve_apps.gateway.servers import serving, until

Start = Callable[..., BatchApp]


def root_of(storage: str) -> Path:
    return Path(storage.removeprefix("file://"))


@contextmanager
def killable(*arguments: str) -> Iterator[tuple[BatchApp, subprocess.Popen[str]]]:
    """A replica in a process of its own."""
    command = [sys.executable, "-m", "tests.serve_apps.batch.replica", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        url = process.stdout.readline().strip()
        with client_of(url) as client:
            yield BatchApp(url, client, Recorded()), process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("shared", ["storage", "redis"])
def test_a_killed_workers_batch_goes_on_and_answers_no_line_twice(
    request: pytest.FixtureRequest,
    batch_app: Start,
    gateway: FakeGateway,
    gateway_url: str,
    storage: str,
    folder: Path,
    shared: str,
) -> None:
    redis_url = []
    if shared == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        redis_url = [server.url]
    gateway.free = 60
    content = jsonl(*(line(f"line-{number}") for number in range(200)))
    with killable(gateway_url, storage, str(folder), *redis_url) as (killed, process):
        batch = killed.start(content)

        def counted() -> int:
            counts = killed.client.batches.retrieve(batch.id).request_counts
            return counts.completed if counts else 0

        until(lambda: counted() == 60)
        until(lambda: len(gateway.asked) == 60 + 16)
        process.kill()
        process.wait()
    gateway.release.set()
    survivor = batch_app(*redis_url, lease_s=SHORT_LEASE_S)
    ended = survivor.ended(batch)
    assert ended.status == "completed"
    assert ended.request_counts
    assert ended.request_counts.model_dump() == {"total": 200, "completed": 200, "failed": 0}
    assert len(survivor.records(ended.output_file_id)) == 200
    times = Counter(asked.said for asked in gateway.asked)
    # What was kept is not asked again; what was under way is, and the gateway can tell by its id.
    assert sorted(times.values()) == [1] * 184 + [2] * 16
    assert len({asked.request_id for asked in gateway.asked}) == 200


def test_a_replica_that_ends_leaves_its_batches_at_once(
    batch_app: Start, gateway: FakeGateway, gateway_url: str, storage: str, folder: Path
) -> None:
    gateway.free = 5
    replica = replica_of(gateway_url, storage, folder, settings=BatchSettings(concurrency=2))
    with serving(replica.app, lifespan="on") as url, client_of(url) as client:
        app = BatchApp(url, client, replica.observed)
        batch = app.start(jsonl(*(line(f"line-{number}") for number in range(10))))
        until(lambda: replica.observed.answered == 5 and len(gateway.asked) == 7)
    assert list((root_of(storage) / "leases").iterdir()) == []
    gateway.release.set()
    assert batch_app().ended(batch).status == "completed"
    assert len(gateway.asked) == 12  # the five that were answered are kept


def test_nothing_but_its_record_is_left_of_a_batch_that_is_over(batch_app: Start, storage: str) -> None:
    app = batch_app()
    assert app.ended(app.start(jsonl(line("a")))).status == "completed"
    root = root_of(storage)
    until(lambda: not [*(root / "open").iterdir(), *(root / "leases").iterdir()])
    assert [path.name for path in root.glob("tenants/*/batches/*/*")] == ["batch.json"]


def test_a_batch_that_is_over_already_is_only_taken_off_the_list(batch_app: Start, storage: str) -> None:
    app = batch_app()
    listed = root_of(storage) / "open" / app.ended(app.start(jsonl(line("a")))).id
    until(lambda: app.observed.endings == ["completed"])
    assert not listed.exists()
    listed.write_text("acme")  # as another replica sees it that looked a moment ago
    until(lambda: not listed.exists())
    assert app.ended(app.start(jsonl(line("a")), endpoint="/v1/embeddings")).status == "failed"
    until(lambda: "failed" in app.observed.endings)
    assert app.observed.endings == ["completed", "failed"]


def test_replicas_work_side_by_side_on_different_batches(
    batch_app: Start, gateway: FakeGateway, redis_server: RedisServer
) -> None:
    replicas = [batch_app(redis_server.url), batch_app(redis_server.url)]
    batches = [replicas[number % 2].start(jsonl(line("a"), line("b"))) for number in range(6)]
    assert {replicas[1].ended(batch).status for batch in batches} == {"completed"}
    assert len(gateway.asked) == 12
    until(lambda: sum(len(replica.observed.endings) for replica in replicas) == 6)


def test_of_ten_thousand_lines_and_a_kill_in_the_middle_each_is_answered_and_stands_in_the_output_once(
    batch_app: Start, gateway: FakeGateway, gateway_url: str, storage: str, folder: Path
) -> None:
    gateway.free = 5000
    content = jsonl(*(line(f"line-{number}") for number in range(10_000)))
    with killable(gateway_url, storage, str(folder)) as (killed, process):
        batch = killed.start(content)
        while len(gateway.asked) < 5000 + 16:  # it may take a busy machine a while; pytest's timeout ends it
            time.sleep(0.05)
        process.kill()
        process.wait()
    gateway.release.set()
    survivor = batch_app(lease_s=SHORT_LEASE_S, concurrency=32)
    ended = survivor.ended(batch, patience_s=300)
    assert ended.request_counts
    assert ended.request_counts.model_dump() == {"total": 10_000, "completed": 10_000, "failed": 0}
    records = survivor.records(ended.output_file_id)
    assert len(records) == 10_000
    assert {record["response"]["body"]["choices"][0]["message"]["content"] for record in records.values()} == set(
        records
    )
    times = Counter(asked.said for asked in gateway.asked)
    assert set(times.values()) == {1, 2}
    # What was under way, and what was answered since the last part.
    assert sum(count == 2 for count in times.values()) <= 16 + 2 * KEEP_ANSWERS


@pytest.mark.parametrize(("lines", "by_ray_data"), [(9, False), (10, True)])
def test_a_large_batch_is_sent_by_processes_beside_the_replica(
    gateway: FakeGateway, gateway_url: str, storage: str, folder: Path, lines: int, by_ray_data: bool
) -> None:
    settings = BatchSettings(ray_data=RayData(from_lines=10, senders=3))
    replica = replica_of(gateway_url, storage, folder, settings=settings)
    gateway.answer = lambda asked: echo(asked) if len(gateway.asked) > 1 else refuses(429, "model_overloaded")
    with serving(replica.app, lifespan="on") as url, client_of(url) as client:
        app = BatchApp(url, client, replica.observed)
        ended = app.ended(app.start(jsonl(*(line(f"line-{number}") for number in range(lines)))))
        assert len(app.records(ended.output_file_id)) == lines
    assert [left.senders for left in replica.senders.asked] == [3] * by_ray_data
    assert (replica.observed.answered, replica.observed.refused) == (lines, 1)


def test_a_second_large_batch_is_sent_by_the_replica_meanwhile(
    gateway: FakeGateway, gateway_url: str, storage: str, folder: Path
) -> None:
    settings = BatchSettings(concurrency=8, ray_data=RayData(from_lines=2))
    replica = replica_of(gateway_url, storage, folder, settings=settings)
    gateway.free = 0
    with serving(replica.app, lifespan="on") as url, client_of(url) as client:
        app = BatchApp(url, client, replica.observed)
        batches = [app.start(jsonl(line(f"{name}1"), line(f"{name}2"))) for name in ("a", "b")]
        until(lambda: {asked.said for asked in gateway.asked} == {"a1", "a2", "b1", "b2"})
        assert len(replica.senders.asked) == 1
        gateway.release.set()
        assert {app.ended(batch).status for batch in batches} == {"completed"}
        assert app.ended(app.start(jsonl(line("c1"), line("c2")))).status == "completed"
    assert len(replica.senders.asked) == 2


def test_a_replica_that_ends_ends_its_processes_and_the_next_one_sends_what_is_left(
    batch_app: Start, gateway: FakeGateway, gateway_url: str, storage: str, folder: Path
) -> None:
    settings = BatchSettings(concurrency=8, ray_data=RayData(from_lines=1))
    replica = replica_of(gateway_url, storage, folder, settings=settings)
    gateway.free = 16
    with serving(replica.app, lifespan="on") as url, client_of(url) as client:
        app = BatchApp(url, client, replica.observed)
        batch = app.start(jsonl(*(line(f"line-{number}") for number in range(40))))
        until(lambda: replica.observed.answered == 16 and len(gateway.asked) == 24)
    assert replica.senders.closed == 1
    gateway.release.set()
    ended = batch_app(ray_data=RayData(from_lines=1)).ended(batch)
    assert ended.request_counts
    assert (ended.status, ended.request_counts.completed) == ("completed", 40)
    assert len(gateway.asked) == 24 + 40 - 16  # what was answered is kept


def test_a_window_that_is_over_ends_a_batch_with_what_is_answered(batch_app: Start, gateway: FakeGateway) -> None:
    clock = Clock(time.time())
    gateway.answer = lambda asked: echo(asked) if asked.said == "a" else refuses(429, "model_overloaded")
    app = batch_app(clock=clock)
    batch = app.start(jsonl(line("a"), line("x")), window="1h")
    until(lambda: app.observed.answered and app.observed.refused)
    clock.now += 3600
    ended = app.ended(batch)
    assert (ended.status, ended.expired_at) == ("expired", ended.expires_at)
    assert list(app.records(ended.output_file_id)) == ["a"]
    assert app.records(ended.error_file_id)["x"]["error"] == {
        "code": "batch_expired",
        "message": "This request could not be executed before the completion window expired.",
    }


def test_an_input_that_is_deleted_fails_its_batch(batch_app: Start, gateway: FakeGateway, storage: str) -> None:
    app = batch_app(max_batches=1)
    gateway.free = 0
    first = app.start(jsonl(line("a")))
    until(lambda: gateway.asked)
    second = app.start(jsonl(line("b")))
    app.client.files.delete(second.input_file_id)
    gateway.release.set()
    assert app.ended(first).status == "completed"
    ended = app.ended(second)
    assert (ended.status, [error.code for error in (ended.errors and ended.errors.data) or []]) == (
        "failed",
        ["input_file_not_found"],
    )


def test_what_is_kept_no_longer_is_gone(batch_app: Start, storage: str) -> None:
    clock = Clock(time.time())
    first = batch_app(clock=clock, retention_hours=24)
    batch = first.ended(first.start(jsonl(line("a")), window="1h"))
    assert batch.output_file_id
    clock.now += 24 * 3600
    assert first.client.files.list().data == []
    root = root_of(storage)
    batch_app(clock=clock, retention_hours=24)  # looks when it starts
    until(lambda: not list(root.glob("tenants/*/*/*")))
    assert json.loads(first.client.batches.with_raw_response.list().text)["data"] == []


def test_what_was_being_made_when_its_maker_was_killed_is_forgotten(batch_app: Start, storage: str) -> None:
    clock = Clock(time.time())
    root = root_of(storage)
    half = new_id("batch_")
    (root / "open").mkdir(parents=True)
    (root / "open" / half).write_text("acme")
    content = root / "tenants" / "acme" / "files" / new_id("file-") / "content"
    content.parent.mkdir(parents=True)
    content.write_bytes(b"half")
    app = batch_app(clock=clock)
    assert app.ended(app.start(jsonl(line("a")))).status == "completed"  # it does not stand in the way
    assert (root / "open" / half).exists()
    assert content.exists()
    clock.now += 2 * 3600
    until(lambda: not (root / "open" / half).exists())
    batch_app(clock=clock)  # looks for files when it starts
    until(lambda: not content.exists())


def test_the_next_batch_is_of_the_tenant_with_the_fewest_under_way() -> None:
    waiting = {"a1": "a", "a2": "a", "b1": "b"}
    assert next_of(waiting, {}) == "a1"
    assert next_of(waiting, {"a0": "a"}) == "b1"
    assert next_of(waiting, {"a0": "a", "b0": "b"}) == "a1"
