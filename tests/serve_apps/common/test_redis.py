import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from redis.asyncio import Connection

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


def test_a_cancellation_that_comes_just_as_all_is_sent_is_heard(
    redis_server: RedisServer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        client = connect(redis_server.url, redis_server.password_file)
        await client.set("a", "1")
        asking = asyncio.ensure_future(client.get("a"))
        send = Connection._send_packed_command

        async def sent_and_cancelled(connection: Connection, command: Any) -> None:
            await send(connection, command)
            asking.cancel()

        with monkeypatch.context() as patched:
            patched.setattr(Connection, "_send_packed_command", sent_and_cancelled)
            async with asyncio.timeout(20):
                await asyncio.wait([asking])
        assert asking.cancelled()
        # No answer to that question is taken for one to the next.
        assert await client.exists("b") == 0
        await client.aclose()

    asyncio.run(story())


def test_a_task_is_told_once_to_end_and_may_take_its_time() -> None:
    async def story() -> None:
        told, left_in_order = 0, False

        async def work() -> None:
            nonlocal told, left_in_order
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told += 1
                await asyncio.sleep(1.2)
                left_in_order = True
                raise

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        await end([task])
        assert (task.cancelled(), told, left_in_order) == (True, 1, True)
        await end([])

    asyncio.run(story())
