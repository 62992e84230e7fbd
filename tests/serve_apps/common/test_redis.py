import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from serve_apps.common.redis import Leases, connect, end
from tests.serve_apps.gateway.redis import RedisServer, redis_server  # noqa: F401  # a fixture


def with_leases(
    server: RedisServer, story: Callable[[Leases, Leases], Coroutine[Any, Any, None]], lease_s: float
) -> None:
    async def play() -> None:
        both = [
            Leases(connect(server.url, server.password_file), replica, lambda what: f"lease:{what}", lease_s)
            for replica in ("1", "2")
        ]
        await story(*both)
        for leases in both:
            await leases.close()

    asyncio.run(play())


def test_a_lease_is_one_replicas_until_it_gives_it_back(redis_server: RedisServer) -> None:  # noqa: F811
    async def story(first: Leases, second: Leases) -> None:
        assert await first.take("a")
        assert not await second.take("a")
        assert not await second.renew("a")
        await second.release("a")
        assert await first.renew("a")
        assert await second.take("b")
        await first.release("a")
        assert await second.take("a")
        assert not await first.renew("a")

    with_leases(redis_server, story, lease_s=60)


def test_a_lease_that_is_not_renewed_is_anybodys(redis_server: RedisServer) -> None:  # noqa: F811
    async def story(first: Leases, second: Leases) -> None:
        assert await first.take("a")
        async with asyncio.timeout(20):
            while not await second.take("a"):
                await asyncio.sleep(0.02)
        assert not await first.renew("a")

    with_leases(redis_server, story, lease_s=0.2)


def test_a_task_that_does_not_notice_its_end_is_told_again() -> None:
    async def story() -> None:
        told = 0

        async def deaf() -> None:
            nonlocal told
            while told < 2:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    told += 1

        task = asyncio.create_task(deaf())
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await end([task], again_s=0.01)
        assert told == 2

    asyncio.run(story())
