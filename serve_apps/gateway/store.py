"""Redis, where the gateway's replicas share counters and verdicts: fast, or not at all.

No request may wait for a Redis that is ill, and none may fail because of it. So a question that takes longer than
50 ms, or fails in any way, makes the store *down*: from then on everybody is told so at once, until a probe in the
background has seen it answer again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from serve_apps.common import secrets
from serve_apps.gateway.scripts import Script, Scripts

logger = logging.getLogger(__name__)

#: Every key of ours begins with this, so that a Redis can be shared and its access list can be narrow.
KEY_PREFIX = "llm-gateway:"
#: The longest that anybody waits for Redis, in seconds, the opening of a connection included.
PATIENCE_S = 0.05
#: Between two probes of a Redis that is down, in seconds.
PROBE_S = 1.0
#: Questions at a time: each has a connection, and new ones are cheap to wait for and dear to open.
MAX_CONNECTIONS = 8

T = TypeVar("T")


def tenant_key(tenant: str, what: str) -> str:
    """The key of ``what`` we know of a tenant; all of a tenant's keys hash alike, as a script in a cluster needs it."""
    return f"{KEY_PREFIX}{{{tenant}}}:{what}"


class StoreDown(Exception):
    """Redis did not answer, or not in time; whoever asked goes on without it."""


class Store:
    """One Redis and its health. It connects when it is first asked, in the event loop that asks."""

    def __init__(
        self,
        url: str,
        password_file: Path | None = None,
        *,
        on_down: Callable[[bool], None] | None = None,
        patience_s: float | None = None,
        probe_s: float | None = None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            url: ``redis://host:port/db``, or ``rediss://``.
            password_file: read at each connection; ``redis/password`` below the root of the secrets unless given.
                Where there is no such file, no password is shown.
            on_down: hears now, and at each change, whether Redis is down.
            patience_s: the longest a question may take; ``PATIENCE_S`` unless given.
            probe_s: between two probes while it is down; ``PROBE_S`` unless given.
        """
        self.down = False
        password = _PasswordFile(password_file or secrets.root() / "redis" / "password")
        self._redis = Redis.from_url(
            url,
            decode_responses=True,
            credential_provider=password if password.exists() else None,
            retry=Retry(NoBackoff(), 0),  # a second attempt is the next request's
            socket_timeout=None,  # ``patience_s`` is the limit
            socket_connect_timeout=None,
        )
        self._turns = asyncio.Semaphore(MAX_CONNECTIONS)
        self._scripts = Scripts(self.ask)
        self._on_down = on_down or (lambda _: None)
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._probe_s = PROBE_S if probe_s is None else probe_s
        self._probe: asyncio.Task[None] | None = None
        self._on_down(False)

    async def ask(self, question: Callable[[Redis], Awaitable[T]]) -> T:
        """What ``question(redis)`` gives: one command or pipeline.

        Raises:
            StoreDown: at once while Redis is known to be down, otherwise within 50 ms.
        """
        if self.down:
            raise StoreDown
        # Outside the patience: a burst of questions takes its time without anything being ill.
        async with self._turns:
            if self.down:
                raise StoreDown
            try:
                return await self._answer(question)
            except (RedisError, OSError, TimeoutError) as error:
                self._went_down(error)
                raise StoreDown from error

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[str | float], within_s: float = 0
    ) -> Any:
        """What ``script`` returns; those that are wanted at the same time share a round trip.

        One that may wait, for ``within_s`` seconds at most, goes with one that may not.

        Raises:
            StoreDown: as ``ask``.
        """
        if self.down:
            raise StoreDown
        return await self._scripts.run(script, keys, arguments, within_s)

    async def close(self) -> None:
        """Send what is still wanted, end the probe and close the connections."""
        await self._scripts.close()
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait([self._probe])
        await self._redis.aclose()

    async def _answer(self, question: Callable[[Redis], Awaitable[T]]) -> T:
        async with asyncio.timeout(None) as limit:
            due_s = asyncio.get_running_loop().time() + self._patience_s
            timer = asyncio.get_running_loop().call_at(due_s, self._is_due, limit, due_s)
            try:
                return await question(self._redis)
            finally:
                timer.cancel()

    def _is_due(self, limit: asyncio.Timeout, due_s: float) -> None:
        now_s = asyncio.get_running_loop().time()
        # Called late, the event loop stood still: it was we who were busy, and the answer may be there already.
        was_still = now_s - due_s > self._patience_s / 2
        limit.reschedule(now_s + self._patience_s if was_still else now_s)

    def _went_down(self, error: Exception) -> None:
        if self.down:
            return  # a neighbour in flight was first
        self.down = True
        logger.error("Redis is down; going on without it", extra={"problem": f"{type(error).__name__}: {error}"})
        self._on_down(True)
        self._probe = asyncio.get_running_loop().create_task(self._until_back())

    async def _until_back(self) -> None:
        since_s = time.monotonic()
        while self.down:
            await asyncio.sleep(self._probe_s)
            try:
                # What was open may lead to a server that is gone.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
                await self._answer(_ping)
            except (RedisError, OSError, TimeoutError):
                continue
            self.down = False
        logger.warning("Redis is back", extra={"down_s": round(time.monotonic() - since_s, 1)})
        self._on_down(False)


class _PasswordFile(CredentialProvider):
    """The password as the file has it now, so that a rotated Secret needs no restart."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def exists(self) -> bool:
        """Whether there is one: a Redis without a password refuses an empty one, too."""
        return self._path.exists()

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        return (self._path.read_text().strip(),)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


async def _ping(redis: Redis) -> Any:
    # Not only that somebody listens: that it may be written to, as a replica of Redis may not.
    return await redis.set(f"{KEY_PREFIX}probe", "", px=1000)
