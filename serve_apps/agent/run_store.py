"""What Redis knows of runs: a record for each, who works on it, and which are not over yet.

A replica that works on a run holds its lease and renews it; a run whose lease ran out is anybody's.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from redis.asyncio import Redis

from serve_apps.agent.checkpoints import KEY_PREFIX
from serve_apps.common.redis import LEASE_S, Leases

#: How long a run is kept after its last change, in seconds.
KEPT_S = 24 * 3600

_ACTIVE = f"{KEY_PREFIX}active"

#: KEYS: lease, record. ARGV: replica, seconds, fields and values. Writes the record of a run that is
#: still the replica's.
_WRITE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1
"""


class RunStore(Leases):
    """The runs of all replicas, and who works on them."""

    def __init__(self, redis: Redis, replica: str, lease_s: float = LEASE_S) -> None:
        """``replica``: a name that no other replica has."""
        super().__init__(redis, replica, _lease, lease_s)

    async def add(self, run: str, record: Mapping[str, str]) -> None:
        """A new run, which is this replica's from now on."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.set(_lease(run), self._replica, px=self._lease_ms)
            pipeline.hset(_record(run), mapping=dict[Any, Any](record))
            pipeline.expire(_record(run), KEPT_S)
            pipeline.sadd(_ACTIVE, run)
            await pipeline.execute()

    async def record(self, run: str) -> dict[str, str]:
        """The record of a run; empty if there is none."""
        return cast(dict[str, str], await self._redis.hgetall(_record(run)))

    async def attempt(self, run: str) -> int:
        """Count, and say, how often the run was begun or taken up."""
        return int(await self._redis.hincrby(_record(run), "attempts", 1))

    async def finish(self, run: str, fields: Mapping[str, str]) -> bool:
        """Write how the run ended; False if it is no longer this replica's."""
        pairs = [part for pair in fields.items() for part in pair]
        written = bool(await self._eval(_WRITE, [_lease(run), _record(run)], self._replica, KEPT_S, *pairs))
        if written:
            await self._redis.srem(_ACTIVE, run)
            await self.release(run)
        return written

    async def remove(self, run: str) -> None:
        """Forget a run. Whoever works on it finds out when it renews its lease."""
        await self._redis.srem(_ACTIVE, run)
        await self._redis.delete(_record(run), _lease(run))

    async def active(self) -> list[str]:
        """The runs that are not over."""
        return sorted(cast(set[str], await self._redis.smembers(_ACTIVE)))

    async def _eval(self, script: str, keys: Sequence[str], *arguments: str | int) -> Any:
        return await self._redis.eval(script, len(keys), *keys, *map(str, arguments))


def _record(run: str) -> str:
    return f"{KEY_PREFIX}{{{run}}}:run"


def _lease(run: str) -> str:
    return f"{KEY_PREFIX}{{{run}}}:lease"
