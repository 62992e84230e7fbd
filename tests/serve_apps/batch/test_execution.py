"""The work on one batch by a worker that others think dead."""

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_apps.batch.execution import Execution, TakenAway
from serve_apps.batch.objects import Batch
from tests.serve_apps.batch.conftest import CHAT, jsonl, line
from tests.serve_apps.batch.fake_gateway import FakeGateway
from tests.serve_apps.batch.replica import Replica, replica_of


@pytest.fixture
def replica(gateway_url: str, storage: str, folder: Path) -> Replica:
    return replica_of(gateway_url, storage, folder)


async def worked_on(replica: Replica, renewals: Iterator[bool]) -> Batch:
    """A new batch's record after an execution whose lease is renewed so often."""
    place = replica.place

    async def renew() -> bool:
        return next(renewals, False)

    content = io.BytesIO(jsonl(line("a"), line("b")))
    file = await place.files.add("acme", "in.jsonl", content, most_bytes=1000, most_stored=10**6, kept_s=10**6)
    batch = await place.batches.add("acme", file.id, CHAT, "24h", None, None)
    try:
        await Execution(place, "acme", batch, renew).run()
    finally:
        await replica.gateway.close()
        stored = await place.batches.stored("acme", batch.id)
    assert stored
    return stored


def test_who_keeps_the_lease_ends_the_batch(replica: Replica) -> None:
    stored = asyncio.run(worked_on(replica, iter([True] * 10)))
    assert (stored.status, stored.request_counts.completed) == ("completed", 2)
    assert replica.observed.endings == ["completed"]


@pytest.mark.parametrize(("renewed", "asked"), [(0, 0), (1, 2), (2, 2), (3, 2)])
def test_who_has_lost_it_writes_nothing_more(replica: Replica, gateway: FakeGateway, renewed: int, asked: int) -> None:
    with pytest.raises(TakenAway):
        asyncio.run(worked_on(replica, iter([True] * renewed)))
    assert (len(gateway.asked), replica.observed.endings) == (asked, [])


def test_a_record_is_as_its_worker_left_it_when_it_lost_the_lease(replica: Replica) -> None:
    async def story() -> Batch:
        with pytest.raises(TakenAway):
            await worked_on(replica, iter([True]))
        ((batch_id, tenant),) = (await replica.place.batches.open()).items()
        stored = await replica.place.batches.stored(tenant, batch_id)
        assert stored
        return stored

    stored = asyncio.run(story())
    assert (stored.status, stored.request_counts.completed) == ("in_progress", 0)
