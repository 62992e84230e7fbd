"""Who works on which batch where there is no Redis: a lease is an object that its holder keeps writing.

Storage cannot compare and set. Two replicas that take a lease in the same moment may both think that it is theirs,
until the one that wrote first looks again; until then some lines are asked twice, and one answer of each is kept. So
this is for one replica, and for the moments in which another takes its place.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Protocol

from serve_apps.batch.storage import Storage
from serve_apps.common.redis import LEASE_S

_LEASES = "leases"


class Leases(Protocol):
    """Who works on what: `serve_apps.common.redis.Leases`, or the one below."""

    async def take(self, what: str) -> bool:
        """Make it this replica's; False if it is somebody's."""

    async def renew(self, what: str) -> bool:
        """Keep it; False if it is no longer this replica's."""

    async def release(self, what: str) -> None:
        """Leave it to others, at once."""

    async def close(self) -> None:
        """Nothing is asked any more."""


class StoredLeases:
    """Leases in a storage. A lease that has not changed for its time, by this replica's clock, is anybody's."""

    def __init__(
        self,
        storage: Storage,
        replica: str,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``replica``: a name that no other replica has."""
        self._storage = storage
        self._replica = replica
        self._lease_s = lease_s
        self._clock = clock
        self._seen: dict[str, tuple[bytes, float]] = {}
        """Others' leases, and since when they look as they do."""
        self._writing: set[asyncio.Task[None]] = set()

    async def take(self, what: str) -> bool:
        found = await asyncio.to_thread(self._storage.read, f"{_LEASES}/{what}")
        if found is not None:
            content, since_s = self._seen.get(what, (b"", 0.0))
            if content != found:
                self._seen[what] = found, self._clock()
                return False
            if self._clock() - since_s < self._lease_s:
                return False
        self._seen.pop(what, None)
        try:
            await self._write(what)
            return await self._is_ours(what)
        except asyncio.CancelledError:
            await self.release(what)  # who asked for it has gone
            raise

    async def renew(self, what: str) -> bool:
        if not await self._is_ours(what):
            return False
        await self._write(what)
        return True

    async def release(self, what: str) -> None:
        if self._writing:  # for somebody who did not wait for it: it would bring the lease back
            await asyncio.wait(self._writing)
        if await self._is_ours(what):
            await asyncio.to_thread(self._storage.delete, f"{_LEASES}/{what}")

    async def close(self) -> None:
        pass

    async def _write(self, what: str) -> None:
        content = f"{self._replica} {uuid.uuid4().hex}".encode()  # never the same twice
        writing = asyncio.create_task(asyncio.to_thread(self._storage.write, f"{_LEASES}/{what}", content))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        await asyncio.shield(writing)

    async def _is_ours(self, what: str) -> bool:
        found = await asyncio.to_thread(self._storage.read, f"{_LEASES}/{what}")
        return found is not None and found.decode().startswith(f"{self._replica} ")
