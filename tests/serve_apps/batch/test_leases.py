import asyncio
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
