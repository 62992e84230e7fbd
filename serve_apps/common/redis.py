"""A Redis that keeps state: a client for it, leases on what one replica works on, and how such work is ended."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.credentials import CredentialProvider

#: How long a replica may be silent before what it works on is another's, in seconds.
LEASE_S = 15.0
#: Until a task that did not notice that it was cancelled is told again, in seconds.
AGAIN_S = 1.0

#: KEYS: lease. ARGV: replica, milliseconds. Renews the lease of whoever has it.
_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
#: KEYS: lease. ARGV: replica. Gives a lease back.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


def connect(url: str, password_file: Path) -> Redis:
    """A client for the Redis at ``url``; it connects when it is first asked."""
    password = _PasswordFile(password_file)
    provider = password if password_file.exists() else None
    return Redis.from_url(url, decode_responses=True, credential_provider=provider, socket_timeout=5)


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


async def end(tasks: Iterable[asyncio.Task[Any]], again_s: float = AGAIN_S) -> None:
    """Cancel tasks until they have ended: a cancellation that meets an answer of Redis is lost.

    redis-py sends with ``asyncio.wait_for``, which has that fault before Python 3.12 (python/cpython#86296).
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=again_s)


class _PasswordFile(CredentialProvider):
    """The password as the file has it now, so that a rotated Secret needs no restart."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        return (self._path.read_text().strip(),)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()
