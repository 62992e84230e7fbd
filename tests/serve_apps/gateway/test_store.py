import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import redis

from serve_apps.gateway.store import KEY_PREFIX, Store, StoreDown
from tests.serve_apps.gateway.redis import RedisServer
from tests.serve_apps.gateway.servers import PATIENCE_S
from tools.ports import free_port

COUNTER = f"{KEY_PREFIX}counter"


def with_store(store: Store, story: Callable[[Store], Awaitable[None]]) -> None:
    """Play ``story`` in an event loop of its own and close the store."""

    async def play() -> None:
        try:
            await story(store)
        finally:
            await store.close()

    asyncio.run(play())


async def until_back(store: Store) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while store.down:
            await asyncio.sleep(0.01)


def test_what_is_asked_is_answered(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        assert await store.ask(lambda redis: redis.incrby(COUNTER, 2)) == 2
        assert await store.ask(lambda redis: redis.get(COUNTER)) == "2"
        assert not store.down

    with_store(redis_server.store(), story)


def test_more_questions_at_once_than_connections_are_all_answered(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        answers = await asyncio.gather(*(store.ask(lambda redis: redis.incr(COUNTER)) for _ in range(200)))
        assert sorted(answers) == list(range(1, 201))

    with_store(redis_server.store(), story)
    with redis_server.client() as client:
        assert client.info("stats")["total_connections_received"] <= 12


def test_a_killed_redis_is_down_at_once_for_everybody(redis_server: RedisServer) -> None:
    heard: list[bool] = []

    async def story(store: Store) -> None:
        await store.ask(lambda redis: redis.incr(COUNTER))
        redis_server.kill()
        asked = 0

        def question(client: object) -> Awaitable[None]:
            nonlocal asked
            asked += 1
            raise AssertionError("a store that is down asks nobody")

        with pytest.raises(StoreDown):
            await store.ask(lambda redis: redis.incr(COUNTER))
        assert store.down
        with pytest.raises(StoreDown):
            await store.ask(question)
        assert asked == 0

    with_store(redis_server.store(on_down=heard.append), story)
    assert heard == [False, True]


def test_a_redis_that_hangs_is_down_too_and_waiters_are_let_go(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        await store.ask(lambda redis: redis.incr(COUNTER))
        redis_server.hang()
        outcomes = await asyncio.gather(
            *(store.ask(lambda redis: redis.incr(COUNTER)) for _ in range(50)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [StoreDown] * 50
        redis_server.go_on()

    with_store(redis_server.store(patience_s=1), story)


def test_an_event_loop_that_stands_still_is_not_taken_for_a_redis_that_does(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        # The first question opens a connection: several answers to wait for.
        asking = asyncio.create_task(store.ask(lambda redis: redis.incr(COUNTER)))
        await asyncio.sleep(0)
        time.sleep(2)  # noqa: ASYNC251  # on purpose
        assert await asking == 1
        assert not store.down

    with_store(redis_server.store(patience_s=1), story)


def test_a_redis_that_is_back_is_found_without_being_asked_for(redis_server: RedisServer) -> None:
    heard: list[bool] = []

    async def story(store: Store) -> None:
        await asyncio.gather(*(store.ask(lambda redis: redis.incr(COUNTER)) for _ in range(8)))
        redis_server.kill()
        with pytest.raises(StoreDown):
            await store.ask(lambda redis: redis.incr(COUNTER))
        redis_server.start()
        await until_back(store)
        # Every connection from before leads nowhere, and none may be tried on a request.
        assert await asyncio.gather(*(store.ask(lambda redis: redis.ping()) for _ in range(8))) == [True] * 8

    with_store(redis_server.store(on_down=heard.append), story)
    assert heard == [False, True, False]


def test_a_redis_that_was_never_there_is_down(tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        with pytest.raises(StoreDown):
            await store.ask(lambda redis: redis.ping())
        assert store.down

    with_store(Store(f"redis://127.0.0.1:{free_port()}", tmp_path / "none"), story)


def test_a_wrong_password_is_no_answer_until_the_file_is_right(redis_server: RedisServer) -> None:
    right = redis_server.password_file.read_text()

    async def story(store: Store) -> None:
        with pytest.raises(StoreDown) as caught:
            await store.ask(lambda redis: redis.ping())
        assert isinstance(caught.value.__cause__, redis.AuthenticationError)
        redis_server.password_file.write_text(right)
        await until_back(store)
        assert await store.ask(lambda redis: redis.ping())

    redis_server.password_file.write_text("wrong")
    with_store(redis_server.store(), story)


def test_a_redis_that_cannot_be_written_to_stays_down(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        with redis_server.client() as client:
            client.replicaof("127.0.0.1", str(free_port()))
        with pytest.raises(StoreDown):
            await store.ask(lambda redis: redis.incr(COUNTER))
        await asyncio.sleep(0.3)
        assert store.down
        with redis_server.client() as client:
            client.replicaof("NO", "ONE")
        await until_back(store)
        assert await store.ask(lambda redis: redis.incr(COUNTER)) == 1

    with_store(redis_server.store(), story)


def test_a_question_that_is_cancelled_leaves_the_next_its_own_answer(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        await store.ask(lambda redis: redis.set(COUNTER, "7"))
        asking = asyncio.create_task(store.ask(lambda redis: redis.blpop(f"{KEY_PREFIX}list", timeout=0)))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not store.down
        assert await store.ask(lambda redis: redis.get(COUNTER)) == "7"

    with_store(redis_server.store(), story)
