"""Versions that break their SLO are taken out, by all replicas of the gateway alike.

Requests are counted in the process that relayed them. Once a second each replica adds its counts to those of the
others in Redis, reads the sum over the window, and judges. What it finds is a verdict that is written once; every
replica obeys it from its next look on, at most a second later. Counts and verdicts belong to the values the route had
(their digest is in the keys), so a changed route begins anew. Without Redis each replica judges by its own counts; a
verdict that it found meanwhile is told to the others once Redis is back.

A rule on the 95th percentile needs no histogram: 95 % keep 0.5 s exactly as long as no more than 5 % take longer, so
counting those is enough, and exact.
"""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from redis.asyncio import Redis

from serve_apps.common.errors import ServingError
from serve_apps.gateway.config import Slo
from serve_apps.gateway.exchange import Exchange
from serve_apps.gateway.refusals import NOT_THE_CLIENTS
from serve_apps.gateway.releases import Plan, Release, Releases
from serve_apps.gateway.store import KEY_PREFIX, Store, StoreDown

logger = logging.getLogger(__name__)

#: Between two looks at the shared counts and verdicts, in seconds.
TICK_S = 1.0
#: Parts a window is counted in, so that it slides; none is shorter than a tick.
SLOTS = 10
#: How long a verdict outlives the last replica of the gateway, in seconds; running replicas renew it.
VERDICT_TTL_S = 30 * 24 * 3600
#: What may take longer than a percentile's limit.
_BEYOND_P95 = 0.05

_TIMEOUT = 504
_NONE_OFF: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a version is out of service: ``broke`` of ``of`` requests broke ``rule``, whose limit is ``limit``."""

    rule: str
    limit: float
    broke: int
    of: int


def judge(slo: Slo, version: str, counts: Mapping[str, int]) -> Verdict | None:
    """The first rule that ``version`` broke, by the counts of a window; None if it keeps them.

    A rule is judged once ``min_requests`` of those it is about were seen.
    """
    rules = (
        ("max_error_rate", slo.max_error_rate, slo.max_error_rate, "errors", "requests"),
        ("ttft_p95_s", slo.ttft_p95_s, _BEYOND_P95, "late", "streams"),
        ("itl_p95_s", slo.itl_p95_s, _BEYOND_P95, "slow", "paced"),
    )
    for rule, limit, share, worse, every in rules:
        broke, of = counts.get(f"{version}/{worse}", 0), counts.get(f"{version}/{every}", 0)
        if limit is not None and share is not None and of >= slo.min_requests and broke / of > share:
            return Verdict(rule, limit, broke, of)
    return None


class Canary:
    """Counts what versions do, and says which are out of service."""

    def __init__(
        self,
        store: Store | None,
        on_off: Callable[[str, str, str, bool], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``on_off(route, version, rule, off)`` hears of each version that is taken out, and put back."""
        self._store = store
        self._on_off = on_off
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._off: dict[str, frozenset[str]] = {}
        self._obsolete: list[_Watched] = []

    def follow(self, releases: Releases) -> None:
        """Watch the routes of a new table. Those with other values than before begin anew, with every version on."""
        before = self._watched
        self._watched = {
            name: watched.of(release) if (watched := before.get(name)) else _Watched(release)
            for name, release in releases.routes.items()
            if release.rules.canary is not None
        }
        for name, watched in before.items():
            if self._watched.get(name) is watched:
                continue
            if self._store is not None:
                self._obsolete.append(watched)
            for version, verdict in watched.verdicts.items():
                logger.info("version back in service", extra={"model": name, "version": version})
                self._on_off(name, version, verdict.rule, False)
        self._note_off()

    def off(self, route: str) -> frozenset[str]:
        """The versions of ``route`` that are out of service."""
        return self._off.get(route, _NONE_OFF)

    def asking(self, plan: Plan, exchange: Exchange) -> None:
        """The version chosen is about to be asked: a first token that does not come is late before it is given up."""
        watched = self._watching(plan)
        if watched is not None:
            watched.wait(plan.candidates[0].version, exchange)

    def observe(self, plan: Plan, exchange: Exchange) -> None:
        """Count an exchange whose answer began, if it is the answer of the version chosen.

        Errors are 5xx, what is no fault of the request either, and answers that broke off, unless the client left.
        Refused (429) and wrong (4xx) requests say nothing about the version. Only streams have a first token; uploads
        and queues before the version was asked are not its own. What failed before it began was told by ``failed``.
        """
        version, status = plan.candidates[0].version, exchange.status
        watched = self._watching(plan)
        if watched is None:
            return
        watched.wait_no_longer(exchange)
        failed = status >= 500 or status in NOT_THE_CLIENTS or (exchange.broken and not exchange.client_left)
        if exchange.version != version or exchange.first_byte_s is None or (400 <= status < 500 and not failed):
            return
        watched.count(version, failed=failed, timed_out=status == _TIMEOUT and not exchange.late)
        if exchange.stream and status < 300:
            first_s = None if exchange.late else exchange.first_byte_s - exchange.asked_s
            watched.count_pace(version, first_s, exchange.inter_token_s)

    def failed(self, plan: Plan, exchange: Exchange, error: ServingError) -> None:
        """Count that the version chosen failed before its answer began, whether or not somebody else is asked now."""
        watched = self._watching(plan)
        if watched is None:
            return
        watched.wait_no_longer(exchange)
        if error.status >= 500:
            timed_out = error.status == _TIMEOUT and not exchange.late
            watched.count(plan.candidates[0].version, failed=True, timed_out=timed_out)

    async def run(self) -> None:
        """Share, judge and obey, for ever."""
        while True:
            try:
                await self.tick()
            except Exception:
                logger.exception("the canary rules could not be checked")
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """Share, judge and obey once."""
        await self._forget_obsolete()
        for watched in list(self._watched.values()):
            now_s = self._clock()
            watched.note_late()
            watched.settle(now_s)
            counts: Mapping[str, int] = watched.window(now_s)
            if self._store is not None:
                with suppress(StoreDown):  # by our own counts, then
                    counts = await self._exchanged(self._store, watched, now_s)
            for version in watched.judged - watched.verdicts.keys():
                if verdict := judge(watched.slo, version, counts):
                    await self._take_out(watched, version, verdict)

    async def _exchanged(self, store: Store, watched: "_Watched", now_s: float) -> Counter[str]:
        """Tell what was counted and found here; learn the verdicts there are. The counts of all in the window."""
        slots = watched.slots_at(now_s)

        async def exchange(redis: Redis) -> list[Any]:
            pipeline = redis.pipeline(transaction=False)
            for slot, unsent in watched.unsent.items():
                for field, count in unsent.items():
                    pipeline.hincrby(watched.slot_key(slot), field, count)
                pipeline.expire(watched.slot_key(slot), watched.slot_ttl_s)
            for version, verdict in watched.verdicts.items():
                pipeline.hsetnx(watched.verdicts_key, version, _written(verdict))
            pipeline.expire(watched.verdicts_key, VERDICT_TTL_S)
            pipeline.hgetall(watched.verdicts_key)
            for slot in slots:
                pipeline.hgetall(watched.slot_key(slot))
            return await pipeline.execute()

        verdicts, *counted = (await store.ask(exchange))[-len(slots) - 1 :]
        watched.unsent.clear()
        for version, written in verdicts.items():
            self._obey(watched, version, _read(written))
        total: Counter[str] = Counter()
        for counts in counted:
            total.update({field: int(count) for field, count in counts.items()})
        return total

    async def _take_out(self, watched: "_Watched", version: str, verdict: Verdict) -> None:
        """Obey ``verdict``, or that of another replica that was first."""

        async def propose(redis: Redis) -> list[Any]:
            pipeline = redis.pipeline(transaction=False)
            pipeline.hsetnx(watched.verdicts_key, version, _written(verdict))
            pipeline.expire(watched.verdicts_key, VERDICT_TTL_S)
            pipeline.hget(watched.verdicts_key, version)
            return await pipeline.execute()

        if self._store is not None:
            with suppress(StoreDown):  # told with the next exchange that succeeds
                verdict = _read((await self._store.ask(propose))[-1])
        self._obey(watched, version, verdict)

    def _obey(self, watched: "_Watched", version: str, verdict: Verdict) -> None:
        # The values may have changed while we asked.
        if version in watched.verdicts or self._watched.get(watched.name) is not watched:
            return
        watched.verdicts[version] = verdict
        self._note_off()
        self._on_off(watched.name, version, verdict.rule, True)
        logger.warning(
            "version taken out of service: it broke its SLO",
            extra={"model": watched.name, "version": version, **asdict(verdict), "window_s": watched.slo.window_s},
        )

    def _note_off(self) -> None:
        self._off = {
            name: watched.judged & watched.verdicts.keys()
            for name, watched in self._watched.items()
            if watched.verdicts
        }

    async def _forget_obsolete(self) -> None:
        """Delete what is known about values that a route no longer has: should they come back, they are tried anew."""
        while self._store is not None and self._obsolete:
            watched = self._obsolete.pop()
            keys = watched.keys_at(self._clock())
            try:
                await self._store.ask(lambda redis, keys=keys: redis.unlink(*keys))  # type: ignore[misc]
            except StoreDown:
                self._obsolete.append(watched)
                return

    def _watching(self, plan: Plan) -> "_Watched | None":
        """What is known of the plan's route, if its values are still those the plan was made with."""
        watched = self._watched.get(plan.named) if plan.digest else None
        return watched if watched is not None and watched.digest == plan.digest else None


class _Watched:
    """A route with canary rules, what this replica counted, and the verdicts in force."""

    def __init__(self, release: Release) -> None:
        if release.rules.canary is None:
            raise ValueError(f"{release.name} has no canary rules")
        self.name = release.name
        self.digest = release.digest
        self.slo = release.rules.canary
        self.judged = _judged(release)
        self.verdicts: dict[str, Verdict] = {}
        #: By slot, what Redis does not know yet: the last second, or all of an outage that the window holds.
        self.unsent: dict[int, Counter[str]] = {}
        self._slot_s = max(TICK_S, self.slo.window_s / SLOTS)
        self._fresh: Counter[str] = Counter()
        self._slots: dict[int, Counter[str]] = {}
        #: By identity: streams whose first token is waited for, and the version that is to send it.
        self._awaited: dict[int, tuple[str, Exchange]] = {}
        # The braces make a Redis cluster keep them together.
        self._keys = f"{KEY_PREFIX}canary:{{{self.name}:{self.digest}}}:"

    def of(self, release: Release) -> "_Watched":
        """This one where the values are the same; what is deployed of the route may have changed. Else a new one."""
        if release.digest != self.digest:
            return _Watched(release)
        self.judged = _judged(release)
        return self

    def count(self, version: str, *, failed: bool, timed_out: bool) -> None:
        """Count a request. One that the version never began to answer kept no time to the first token either."""
        if version not in self.judged:
            return
        self._fresh[f"{version}/requests"] += 1
        if failed:
            self._fresh[f"{version}/errors"] += 1
        if timed_out:
            self._fresh[f"{version}/streams"] += 1
            self._fresh[f"{version}/late"] += 1

    def wait(self, version: str, exchange: Exchange) -> None:
        """From now on a stream's first token is waited for, where there is a rule about it."""
        if exchange.stream and self.slo.ttft_p95_s is not None and version in self.judged:
            self._awaited[id(exchange)] = version, exchange

    def wait_no_longer(self, exchange: Exchange) -> None:
        """It has come, or nobody waits for it any more: whoever left after too long has waited too long."""
        if (awaited := self._awaited.pop(id(exchange), None)) is not None:
            self._note_late(*awaited)

    def note_late(self) -> None:
        """Count the first tokens that are late by now: a version that hangs may be waited for for many minutes."""
        for version, exchange in self._awaited.values():
            self._note_late(version, exchange)

    def _note_late(self, version: str, exchange: Exchange) -> None:
        if exchange.late or exchange.first_byte_s is not None or not exchange.asked_s or self.slo.ttft_p95_s is None:
            return
        if time.perf_counter() - exchange.started_s - exchange.asked_s > self.slo.ttft_p95_s:
            exchange.late = True
            self._fresh[f"{version}/streams"] += 1
            self._fresh[f"{version}/late"] += 1

    def count_pace(self, version: str, first_s: float | None, between_s: float | None) -> None:
        """Count how long a stream took to its first token, unless that was counted already, and between two."""
        if version not in self.judged:
            return
        if first_s is not None:
            self._fresh[f"{version}/streams"] += 1
            if self.slo.ttft_p95_s is not None and first_s > self.slo.ttft_p95_s:
                self._fresh[f"{version}/late"] += 1
        if between_s is None:
            return
        self._fresh[f"{version}/paced"] += 1
        if self.slo.itl_p95_s is not None and between_s > self.slo.itl_p95_s:
            self._fresh[f"{version}/slow"] += 1

    def settle(self, now_s: float) -> None:
        """Put what was counted since the last time into the window, and drop what has left it."""
        fresh, self._fresh = self._fresh, Counter()
        slots = self.slots_at(now_s)
        for known in (self._slots, self.unsent):
            if fresh:
                known.setdefault(slots[-1], Counter()).update(fresh)
            for old in [slot for slot in known if slot < slots[0]]:
                del known[old]

    def window(self, now_s: float) -> Counter[str]:
        """What this replica counted in the window."""
        return sum((self._slots.get(slot, Counter()) for slot in self.slots_at(now_s)), Counter[str]())

    def slots_at(self, now_s: float) -> range:
        """The slots of the window that ends now: it is up to one slot longer than asked for, never shorter."""
        return range(int((now_s - self.slo.window_s) // self._slot_s), int(now_s // self._slot_s) + 1)

    @property
    def slot_ttl_s(self) -> int:
        """How long a slot is needed, in seconds, and some more."""
        return int(self.slo.window_s + 3 * self._slot_s) + 1

    @property
    def verdicts_key(self) -> str:
        """A hash: version -> verdict."""
        return f"{self._keys}off"

    def slot_key(self, slot: int) -> str:
        """A hash: version/what -> count."""
        return f"{self._keys}{slot}"

    def keys_at(self, now_s: float) -> list[str]:
        """All there are."""
        return [self.verdicts_key, *(self.slot_key(slot) for slot in self.slots_at(now_s))]


def _judged(release: Release) -> frozenset[str]:
    """Every version but the stable one: somebody must answer."""
    return frozenset(served.name for served in release.versions) - {release.stable}


def _written(verdict: Verdict) -> str:
    return json.dumps(asdict(verdict))


def _read(written: str) -> Verdict:
    return Verdict(**json.loads(written))
