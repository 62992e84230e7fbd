"""Tenants' counters in Redis, which all replicas share.

What is asked or told of one tenant in the same round of the event loop goes there as one script: a burst of requests
waits for that as long as one of them would.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from serve_apps.gateway import gcra
from serve_apps.gateway.gcra import Amounts, Bounds, Bucket, Outcome, Wanted
from serve_apps.gateway.metering import month, month_key
from serve_apps.gateway.scripts import Script
from serve_apps.gateway.store import Store, StoreDown, tenant_key
from serve_apps.gateway.together import Together

logger = logging.getLogger(__name__)

#: Seconds that a settlement waits for a request to go to Redis with, in one round trip for both. Other replicas count
#: what it settles as running for that much longer.
SETTLED_WITHIN_S = 0.005

#: A tenant and its limits: those of what its own requests lead to inside are others.
Limited = tuple[str, Bounds]
#: What is owed, and the leases that are over.
Settlement = tuple[Amounts, Sequence[str]]

_NONE = -1
_NO_BUCKET = Bucket(_NONE, _NONE)
_NO_ADVANCE = Amounts(_NONE, _NONE)
_TAKE, _SETTLE, _RENEW = Script(gcra.TAKE), Script(gcra.SETTLE), Script(gcra.RENEW)


class SharedCounters:
    """Asks Redis, and tells it."""

    def __init__(
        self,
        store: Store,
        begin: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        clock: Callable[[], float],
    ) -> None:
        """Nothing is asked yet.

        Args:
            store: Redis.
            begin: makes a task of work that goes on when nobody waits for it any more.
            clock: seconds since the epoch, which say the month.
        """
        self._store = store
        self._clock = clock
        self._wanted: Together[Limited, Wanted, Outcome] = Together(self._take, begin)
        self._settlements: Together[Limited, Settlement, None] = Together(self._settle, begin)

    @property
    def down(self) -> bool:
        """Whether Redis is known to be down."""
        return self._store.down

    async def take(self, limited: Limited, wanted: Wanted) -> Outcome:
        """Whether a request is let in, as ``gcra.take``.

        Raises:
            StoreDown: Redis does not say.
        """
        taking, number = self._wanted.add(limited, wanted)
        return (await asyncio.shield(taking))[number]

    def settle(self, limited: Limited, owed: Amounts, leases: Sequence[str]) -> None:
        """Have Redis hear what is owed, or given back, and which places are free; as ``gcra.settle``, soon."""
        self._settlements.add(limited, (owed, leases))

    async def renew(self, tenant: str, leases: Iterable[str]) -> None:
        """Prolong the leases that are still known.

        Raises:
            StoreDown: Redis did not hear it.
        """
        await self._store.run(_RENEW, [tenant_key(tenant, "running")], [_NONE, gcra.LEASE_S, *leases])

    async def _take(self, limited: Limited, wanted: list[Wanted]) -> list[Outcome]:
        tenant, bounds = limited
        keys = [*_keys(tenant), month_key(tenant, month(self._clock()))]
        return outcomes(await self._store.run(_TAKE, keys, take_arguments(bounds, wanted)))

    async def _settle(self, limited: Limited, settlements: list[Settlement]) -> list[None]:
        tenant, bounds = limited
        owed = Amounts(sum(each.requests for each, _ in settlements), sum(each.tokens for each, _ in settlements))
        leases = [lease for _, ended in settlements for lease in ended]
        try:
            await self._store.run(_SETTLE, _keys(tenant), settle_arguments(bounds, owed, leases), SETTLED_WITHIN_S)
        except StoreDown:
            logger.debug("requests were not settled: Redis is down", extra={"tenant": tenant})
        return []  # nobody waits for them


def take_arguments(bounds: Bounds, wanted: Iterable[Wanted], now: float = _NONE) -> list[float | str]:
    """What ``gcra.TAKE`` is given; without ``now``, Redis' own clock counts."""
    return [
        now,
        *(bounds.requests or _NO_BUCKET),
        *(bounds.tokens or _NO_BUCKET),
        _NONE if bounds.running is None else bounds.running,
        _NONE if bounds.budget is None else bounds.budget,
        gcra.LEASE_S,
        *(each for tokens, lease, advance in wanted for each in (tokens, lease, *(advance or _NO_ADVANCE))),
    ]


def outcomes(answers: Iterable[Sequence[Any]]) -> list[Outcome]:
    """What ``gcra.TAKE`` has answered."""
    return [
        Outcome(refused_by, float(requests), float(tokens), bool(advanced))
        for refused_by, requests, tokens, advanced in answers
    ]


def settle_arguments(bounds: Bounds, owed: Amounts, leases: Iterable[str], now: float = _NONE) -> list[float | str]:
    """What ``gcra.SETTLE`` is given, as ``take_arguments``."""
    rates = ((bucket or _NO_BUCKET).rate for bucket in (bounds.requests, bounds.tokens))
    return [now, *rates, *owed, *leases]


def _keys(tenant: str) -> list[str]:
    return [tenant_key(tenant, each) for each in ("requests", "tokens", "running")]
