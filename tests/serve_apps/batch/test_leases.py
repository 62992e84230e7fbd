import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from serve_apps.batch.leases import StoredLeases
from serve_apps.batch.storage import Storage
from tests.serve_apps.clock import Clock


def leases(tmp_path: Path, replica: str, clock: Clock) -> StoredLeases:
    return StoredLeases(Storage(f"file://{tmp_path}"), replica, 15, clock)


@pytest.fixture
def clock() -> Clock:
    return Clock(0)


def test_one_has_it_until_it_gives_it_back(tmp_path: Path, clock: Clock) -> None:
    first, second = leases(tmp_path, "1", clock), leases(tmp_path, "2", clock)

    async def story() -> None:
        assert await first.take("batch")
        assert not await second.take("batch")
        assert not await second.renew("batch")
        await second.release("batch")
        assert await first.renew("batch")
        await first.release("batch")
        assert await second.take("batch")
        assert not await first.renew("batch")

    asyncio.run(story())


def test_who_renews_keeps_it_and_who_is_silent_loses_it(tmp_path: Path, clock: Clock) -> None:
    first, second = leases(tmp_path, "1", clock), leases(tmp_path, "2", clock)

    async def story() -> None:
        assert await first.take("batch")
        for _ in range(5):
            assert not await second.take("batch")
            clock.now += 10
            assert await first.renew("batch")
        assert not await second.take("batch")  # sees the last renewal
        clock.now += 14
        assert not await second.take("batch")
        clock.now += 1
        assert await second.take("batch")
        assert not await first.renew("batch")

    asyncio.run(story())


class SlowStorage(Storage):
    """One whose writes can be held up."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.writes, self.may_write, self.has_written = (threading.Event() for _ in range(3))
        self.may_write.set()

    def write(self, path: str, content: bytes) -> None:
        self.writes.set()
        assert self.may_write.wait(60)
        super().write(path, content)
        self.has_written.set()


@pytest.mark.parametrize("cut_off", [StoredLeases.take, StoredLeases.renew])
def test_nothing_of_it_is_left_where_who_took_or_renewed_it_is_cut_off(
    tmp_path: Path, clock: Clock, cut_off: Callable[[StoredLeases, str], Awaitable[bool]]
) -> None:
    storage = SlowStorage(f"file://{tmp_path}")
    ours, others = StoredLeases(storage, "1", 15, clock), leases(tmp_path, "2", clock)

    async def story() -> None:
        if cut_off is StoredLeases.renew:
            assert await ours.take("batch")
        for event in (storage.writes, storage.may_write, storage.has_written):
            event.clear()
        asking = asyncio.ensure_future(cut_off(ours, "batch"))
        await asyncio.to_thread(storage.writes.wait, 60)
        asking.cancel()
        releasing = asyncio.create_task(ours.release("batch"))
        await asyncio.sleep(0.05)
        storage.may_write.set()
        await asyncio.to_thread(storage.has_written.wait, 60)
        await asyncio.wait([asking, releasing])
        assert asking.cancelled()
        assert await others.take("batch")

    asyncio.run(story())
