"""Rates, concurrency and budgets of tenants, counted over all replicas of the gateway where there is a Redis.

A request reserves its estimate of tokens when it comes and is settled with what it really used. With Redis that is
one round trip before it is sent on, shared by all that come at the same time; settlements go with it, and nobody waits
for them. A busy tenant that is far from its limits costs one now and then, and so do the requests that it sends at once
(``advances``); one without limits costs none.
While Redis is down, or where there is none, each replica grants its share of every limit by itself.
"""

import asyncio
import itertools
import logging
import math
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeVar

from serve_apps.gateway import advances, gcra, limit_answers
from serve_apps.gateway.advances import Advance, Wanted
from serve_apps.gateway.config import Tenant
from serve_apps.gateway.gcra import Amounts, Bounds, Bucket, Counters, Outcome
from serve_apps.gateway.headers import RawHeaders
from serve_apps.gateway.metering import month, month_ends_in_s, month_key
from serve_apps.gateway.request import Wish
from serve_apps.gateway.scripts import Script
from serve_apps.gateway.store import Store, StoreDown, tenant_key
from serve_apps.gateway.usage import Tokens

logger = logging.getLogger(__name__)

#: Bytes of JSON for one token: an estimate that the settlement corrects.
BYTES_PER_TOKEN = 4
#: Tokens that an answer is taken to have while none of its model was seen.
FIRST_COMPLETION_TOKENS = 256
#: How much one answer moves the mean of its model's.
LEARNING_RATE = 0.05
#: Seconds that a settlement waits for a request to go to Redis with, in one round trip for both. Other replicas count
#: what it settles as running for that much longer.
SETTLED_WITHIN_S = 0.005
#: Tenants whose counters a replica keeps by itself before it looks for idle ones to forget.
MAX_IDLE_TENANTS = 10_000

T = TypeVar("T")

_NONE = -1
_UNBOUNDED = Bounds()
_NO_BUCKET = Bucket(_NONE, _NONE)
_NO_ADVANCE = Amounts(_NONE, _NONE)
_TAKE, _SETTLE, _RENEW = Script(gcra.TAKE), Script(gcra.SETTLE), Script(gcra.RENEW)


@dataclass(slots=True)
class Grant:
    """A request that was let in, until it is settled."""

    headers: RawHeaders = field(default_factory=list)
    """``x-ratelimit-*``, for the answer."""
    tenant: str = ""
    bounds: Bounds = _UNBOUNDED
    tokens: int = 0
    """What was reserved."""
    lease: str = ""
    """Its name among the running ones; empty once it is settled, and where nothing is limited."""
    advance: Advance | None = None
    """The tenant's; None where Redis does not count the request."""


class Limits:
    """Who may send one more request now."""

    def __init__(
        self,
        store: Store | None,
        outage: Literal["share", "open"],
        spent: Callable[[str, int], float],
        clock: Callable[[], float] = time.time,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is counted yet.

        Args:
            store: Redis; None: each replica counts its share.
            outage: what happens while Redis is down.
            spent: a tenant's money of this month as this replica knows it, given how many replicas spend alike.
            clock: seconds since the epoch, which say the month.
            stopwatch: seconds that only go on, for what this replica counts by itself.
        """
        self.replicas = 1
        """How many replicas share every limit while each counts for itself."""
        self._store = store
        self._outage = outage
        self._spent = spent
        self._clock = clock
        self._stopwatch = stopwatch
        self._advances: dict[tuple[str, Bounds], Advance] = {}
        """By tenant and limits: those of what its own requests lead to inside are others."""
        self._counters: dict[str, Counters] = {}
        self._look_for_idle_at = MAX_IDLE_TENANTS
        self._held: dict[str, Grant] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._completions: dict[str, float] = {}
        self._replica = uuid.uuid4().hex[:12]
        self._numbers = itertools.count()

    def estimate(self, model: str, rules: Tenant, wish: Wish) -> int:
        """The tokens a request may use: its size in tokens, and what it may or its model's answers usually have."""
        prompt = len(wish.body) / BYTES_PER_TOKEN
        if not wish.generates:
            return math.ceil(prompt)
        usual = self._completions.get(model, FIRST_COMPLETION_TOKENS)
        generated = wish.max_tokens if wish.max_tokens is not None else min(usual, rules.max_tokens or usual)
        return math.ceil(prompt + generated * max(1, wish.choices))

    def learn(self, model: str, completion_tokens: int) -> None:
        """Remember how long an answer of ``model`` (a name in the table) was."""
        usual = self._completions.get(model, float(completion_tokens))
        self._completions[model] = usual + (completion_tokens - usual) * LEARNING_RATE

    def assumed(self, wish: Wish, pieces: int) -> Tokens:
        """What an answer used that broke off after so many pieces, and so never said: leaving early is not free."""
        return Tokens(math.ceil(len(wish.body) / BYTES_PER_TOKEN), pieces)

    async def take(self, tenant: str, rules: Tenant, tokens: int) -> Grant:
        """Let a request with an estimate of ``tokens`` in; ``settle`` must follow, whatever becomes of it.

        An estimate above the whole limit waits for an empty bucket; what it really used is charged afterwards.

        Raises:
            LimitReached: it does not fit now.
        """
        if not _is_limited(rules):
            return Grant()
        if self._store is not None:
            try:
                return await self._take_shared(self._store, tenant, rules, tokens)
            except StoreDown:
                self._forget_advances()
                if self._outage == "open":
                    return Grant()
        return self._take_here(tenant, rules, tokens)

    def settle(self, grant: Grant, tokens: int | None) -> None:
        """End a request that really used ``tokens``: 0 gives the whole estimate back, None lets it stand.

        Nobody waits for Redis here. What it does not hear while it is down is earned again within a minute, and the
        place of the request is free when its lease is over.
        """
        lease, grant.lease = grant.lease, ""
        if not lease:
            return
        self._held.pop(lease, None)
        owed = 0 if tokens is None else tokens - grant.tokens
        if grant.advance is None:
            counters = self._counters.get(grant.tenant)
            if counters is not None:
                gcra.settle(counters, grant.bounds, self._stopwatch(), Amounts(0, owed), (lease,))
            return
        if grant.advance.settle(owed, lease, self._stopwatch()):
            return
        if (grant.bounds.tokens and owed) or grant.bounds.running is not None:
            self._owe(grant.tenant, grant.bounds, Amounts(0, owed), (lease,))

    async def run(self) -> None:
        """Give back in time what was taken in advance, and say every 20 s that the running requests still run."""
        renewed_s = self._stopwatch()
        try:
            while True:
                await asyncio.sleep(advances.LIFE_S)
                self.give_back()
                if self._stopwatch() - renewed_s >= gcra.LEASE_S / 3:
                    renewed_s = self._stopwatch()
                    await self.renew()
        finally:
            self.give_back(all_of_it=True)
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def give_back(self, *, all_of_it: bool = False) -> None:
        """End the advances that are over, and forget the tenants that have not come of late."""
        now = self._stopwatch()
        for (tenant, bounds), advance in list(self._advances.items()):
            if advance.is_idle(now):
                del self._advances[tenant, bounds]
            elif all_of_it or advance.is_over(now):
                self._end(tenant, advance)

    async def renew(self) -> None:
        """Prolong the leases of the running requests."""
        shared: dict[str, list[str]] = {}
        for (tenant, _), advance in self._advances.items():
            if advance.places:
                shared.setdefault(tenant, []).extend(advance.places)
        for lease, grant in self._held.items():
            if grant.advance is not None:
                shared.setdefault(grant.tenant, []).append(lease)
            elif (counters := self._counters.get(grant.tenant)) is not None:
                counters.leases[lease] = self._stopwatch() + gcra.LEASE_S
        for tenant, leases in shared.items():
            if self._store is not None:
                try:
                    keys = [tenant_key(tenant, "running")]
                    await self._store.run(_RENEW, keys, [_NONE, gcra.LEASE_S, *leases])
                except StoreDown:
                    return

    async def _take_shared(self, store: Store, tenant: str, rules: Tenant, tokens: int) -> Grant:
        if store.down:
            raise StoreDown
        bounds, lease = _bounds(rules), self._lease()
        reserved = _reserved(bounds, tokens)
        advance = self._advances.get((tenant, bounds))
        if advance is None:
            advance = self._advances[tenant, bounds] = Advance(bounds)
        advance.see(reserved, self._stopwatch())
        grant = self._take_ahead(store, tenant, advance, reserved, lease)
        if grant is None and advance.asking is not None:
            # Of many that come together the first asks for all.
            advance.waiting += 1
            await asyncio.wait((advance.asking,))
            grant = self._take_ahead(store, tenant, advance, reserved, lease)
        if grant is not None:
            return grant
        try:
            outcome = None
            if advance.asking is None and advance.may_pay(self._stopwatch()):
                # Who leaves meanwhile leaves to others what is taken for them.
                outcome = await asyncio.shield(
                    self._begin(advance, self._ask_ahead(store, tenant, advance, reserved, lease))
                )
            if outcome is None:
                outcome = await self._ask(store, tenant, bounds, reserved, lease)
        except asyncio.CancelledError:
            if bounds.running is not None:
                self._owe(tenant, bounds, Amounts(0, 0), (lease,))  # Redis lets it in all the same
            raise
        return self._granted(outcome, tenant, bounds, reserved, lease, advance)

    def _take_ahead(self, store: Store, tenant: str, advance: Advance, tokens: int, lease: str) -> Grant | None:
        """A grant from what was taken in advance, if that is enough."""
        bounds, now = advance.bounds, self._stopwatch()
        if store.down or (bounds.budget is not None and self._spent(tenant, 1) >= bounds.budget):
            return None
        taken = advance.take(tokens, lease, now)
        if taken is None:
            return None
        if advance.is_ending(now) and advance.wanted() is not None:
            self._begin(advance, self._renew(store, tenant, advance))
        return self._granted(taken[0], tenant, bounds, tokens, taken[1], advance)

    def _forget_advances(self) -> None:
        """Redis is down; when it is back, it need not know them."""
        for advance in self._advances.values():
            advance.end()
        self._advances.clear()

    def _begin(self, advance: Advance, asking: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Have Redis asked for an advance, once all requests that came together have been seen."""
        task = self._soon(asking)
        advance.asking, advance.waiting = task, 0
        return task

    async def _ask_ahead(self, store: Store, tenant: str, advance: Advance, tokens: int, lease: str) -> Outcome | None:
        """Ask for a request and an advance; None: that does not pay, and nothing was asked."""
        try:
            wanted = advance.wanted()
            if wanted is None:
                return None
            places = [self._lease() for _ in range(wanted.places)]
            outcome = await self._ask(store, tenant, advance.bounds, tokens, lease, wanted, places)
        finally:
            advance.asking = None
        if not outcome.advanced:
            advance.deny(self._stopwatch())
            self._end(tenant, advance)  # others may need what is left
        elif idle := advance.begin(wanted, places, outcome, self._stopwatch()):
            self._owe(tenant, advance.bounds, Amounts(0, 0), idle)
        return outcome

    async def _renew(self, store: Store, tenant: str, advance: Advance) -> None:
        lease = self._lease()
        outcome = await self._ask_ahead(store, tenant, advance, 0, lease)
        if outcome is not None and not outcome.refused_by:  # it was let in, and there is no such request
            self._owe(tenant, advance.bounds, Amounts(-1, 0), (lease,))

    async def _ask(
        self,
        store: Store,
        tenant: str,
        bounds: Bounds,
        tokens: int,
        lease: str,
        wanted: Wanted | None = None,
        places: Sequence[str] = (),
    ) -> Outcome:
        keys = _keys(tenant, "requests", "tokens", "running")
        keys.append(month_key(tenant, month(self._clock())))
        advance = None if wanted is None else Amounts(wanted.requests, wanted.tokens)
        answer = await store.run(_TAKE, keys, take_arguments(bounds, tokens, lease, advance=advance, places=places))
        return Outcome(answer[0], float(answer[1]), float(answer[2]), bool(answer[3]))

    def _end(self, tenant: str, advance: Advance) -> None:
        owed, places = advance.end()
        if any(owed) or places:
            self._owe(tenant, advance.bounds, owed, places)

    def _take_here(self, tenant: str, rules: Tenant, tokens: int) -> Grant:
        bounds, lease, now = _bounds(rules, self.replicas), self._lease(), self._stopwatch()
        reserved = _reserved(bounds, tokens)
        counters = self._counters.get(tenant)
        if counters is None:
            self._forget_idle(now)
            counters = self._counters[tenant] = Counters()
        if bounds.budget is not None:
            counters.spent = self._spent(tenant, self.replicas)
        outcome = gcra.take(counters, bounds, now, reserved, lease)
        return self._granted(outcome, tenant, bounds, reserved, lease)

    def _granted(
        self,
        outcome: Outcome,
        tenant: str,
        bounds: Bounds,
        tokens: int,
        lease: str,
        advance: Advance | None = None,
    ) -> Grant:
        headers = limit_answers.headers(outcome, bounds)
        if outcome.refused_by:
            raise limit_answers.refusal(outcome, bounds, tokens, headers, month_ends_in_s(self._clock()))
        grant = Grant(headers, tenant, bounds, tokens, lease, advance)
        if bounds.running is not None:
            self._held[lease] = grant
        return grant

    def _owe(self, tenant: str, bounds: Bounds, owed: Amounts, leases: Sequence[str]) -> None:
        """Have Redis hear what is owed, or given back, and which places are free."""
        if self._store is None:
            return
        self._soon(self._settle_shared(self._store, tenant, bounds, owed, leases))

    async def _settle_shared(
        self, store: Store, tenant: str, bounds: Bounds, owed: Amounts, leases: Sequence[str]
    ) -> None:
        keys = _keys(tenant, "requests", "tokens", "running")
        try:
            await store.run(_SETTLE, keys, settle_arguments(bounds, owed, leases), SETTLED_WITHIN_S)
        except StoreDown:
            logger.debug("a request was not settled: Redis is down", extra={"tenant": tenant})

    def _soon(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something that need not be waited for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who waited for it has been told

    def _lease(self) -> str:
        return f"{self._replica}-{next(self._numbers)}"

    def _forget_idle(self, now: float) -> None:
        if len(self._counters) < self._look_for_idle_at:
            return
        self._counters = {
            tenant: each
            for tenant, each in self._counters.items()
            if each.leases or max(each.requests_tat, each.tokens_tat) > now
        }
        self._look_for_idle_at = max(MAX_IDLE_TENANTS, 2 * len(self._counters))


def take_arguments(
    bounds: Bounds,
    tokens: float,
    lease: str,
    now: float = _NONE,
    advance: Amounts | None = None,
    places: Sequence[str] = (),
) -> list[float | str]:
    """What ``gcra.TAKE`` is given; without ``now``, Redis' own clock counts."""
    return [
        now,
        *(bounds.requests or _NO_BUCKET),
        *(bounds.tokens or _NO_BUCKET),
        _NONE if bounds.running is None else bounds.running,
        _NONE if bounds.budget is None else bounds.budget,
        tokens,
        lease,
        gcra.LEASE_S,
        *(advance or _NO_ADVANCE),
        *places,
    ]


def settle_arguments(bounds: Bounds, owed: Amounts, leases: Iterable[str], now: float = _NONE) -> list[float | str]:
    """What ``gcra.SETTLE`` is given, as ``take_arguments``."""
    rates = ((bucket or _NO_BUCKET).rate for bucket in (bounds.requests, bounds.tokens))
    return [now, *rates, *owed, *leases]


def _keys(tenant: str, *what: str) -> list[str]:
    return [tenant_key(tenant, each) for each in what]


def _is_limited(rules: Tenant) -> bool:
    return not (
        rules.requests_per_minute is None
        and rules.tokens_per_minute is None
        and rules.max_concurrent_requests is None
        and rules.monthly_budget is None
    )


def _bounds(rules: Tenant, shares: int = 1) -> Bounds:
    """A tenant's limits, or one of ``shares`` equal parts of them; for money, what was spent is scaled instead."""
    requests, tokens, running = rules.requests_per_minute, rules.tokens_per_minute, rules.max_concurrent_requests
    return _shared(requests, tokens, running, rules.monthly_budget, shares)


@lru_cache(1024)
def _shared(requests: int | None, tokens: int | None, running: int | None, budget: float | None, shares: int) -> Bounds:
    return Bounds(
        None if requests is None else Bucket.per_minute(requests, shares),
        None if tokens is None else Bucket.per_minute(tokens, shares),
        None if running is None else max(1, running // shares),
        budget,
    )


def _reserved(bounds: Bounds, tokens: int) -> int:
    return min(tokens, int(bounds.tokens.burst)) if bounds.tokens else 0
