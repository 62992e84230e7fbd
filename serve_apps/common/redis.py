"""A Redis that keeps state: a client for it, leases on what one replica works on, and how such work is ended."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.credentials import CredentialProvider

#: How long a replica may be silent before what it works on is another's, in seconds.
LEASE_S = 15.0

#: KEYS: lease. ARGV: replica, milliseconds. Renews the lease of whoever has it.
_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
#: KEYS: lease. ARGV: replica. Gives a lease back.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


def connect(url: str, password_file: Path) -> Redis:
    """A client for the Redis at ``url``; it connects when it is first asked."""
    password = _PasswordFile(password_file)
    provider = password if password_file.exists() else None
    pool = ConnectionPool.from_url(url, decode_responses=True, credential_provider=provider, socket_timeout=5)
    pool.connection_class = _TlsConnection if issubclass(pool.connection_class, SSLConnection) else _PlainConnection
    return Redis.from_pool(pool)


class Leases:
    """Who works on what: a replica renews what it holds, and what is not renewed is anybody's."""

    def __init__(self, redis: Redis, replica: str, key: Callable[[str], str], lease_s: float = LEASE_S) -> None:
        """``replica``: a name that no other replica has; ``key``: the lease's key for what is worked on."""
        self._redis = redis
        self._replica = replica
        self._key = key
        self._lease_ms = int(lease_s * 1000)

    async def take(self, what: str) -> bool:
        """Make it this replica's; False if it is somebody's."""
        return bool(await self._redis.set(self._key(what), self._replica, nx=True, px=self._lease_ms))

    async def renew(self, what: str) -> bool:
        """Keep it; False if it is no longer this replica's."""
        return bool(await self._redis.eval(_RENEW, 1, self._key(what), self._replica, str(self._lease_ms)))

    async def release(self, what: str) -> None:
        """Leave it to others, at once."""
        await self._redis.eval(_RELEASE, 1, self._key(what), self._replica)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have ended. Each is told once, so that it can leave things in order."""
    ending = [*tasks]
    for task in ending:
        task.cancel()
    if ending:
        await asyncio.wait(ending)


class _HearsCancellation:
    """A connection whose user is cancelled when it is told to be.

    redis-py sends with ``asyncio.wait_for``, which before Python 3.12 drops a cancellation that comes just as all is
    sent (python/cpython#86296): a task that was told to end would go on for ever.
    """

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        task = asyncio.current_task()
        told = task.cancelling() if task else 0
        await super().send_packed_command(command, check_health)  # type: ignore[misc]  # the connection beside it
        if task and task.cancelling() > told:
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]  # an answer that nobody reads will come
            raise asyncio.CancelledError


class _PlainConnection(_HearsCancellation, Connection):
    pass


class _TlsConnection(_HearsCancellation, SSLConnection):
    pass


class _PasswordFile(CredentialProvider):
    """The password as the file has it now, so that a rotated Secret needs no restart."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        return (self._path.read_text().strip(),)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()
