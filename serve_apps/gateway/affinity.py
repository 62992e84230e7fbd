"""Which of a model's replicas answers: the one that has the prompt's beginning in its cache, unless it is too busy.

A prompt is known by keys of its beginnings, each longer than the one before. The replica that last answered the longest
known beginning is asked again. A beginning that much of the traffic shares, such as a system prompt, says nothing:
every replica has it cached. A prompt without a past goes where the hash of its session, or of its first beginning that
is its own, leads (rendezvous hashing), so gateways that know nothing of each other agree. Both give way to load: no
replica gets more than a factor above the mean, neither of requests at a time nor of prompt bytes lately.

A LoRA adapter is a past that all its prompts share: one without another goes to the replica that has it loaded.

No I/O, no clock and no chance in it: the same calls lead to the same choices.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol, TypeVar
from zlib import crc32

#: A replica fits while its requests in flight are at most the mean times this, plus some that a batch absorbs.
IN_FLIGHT_FACTOR = 1.25
SPARE_IN_FLIGHT = 4
#: It also fits only while its recent work is at most the mean times this, plus some prompts of mean size: more of them
#: where the prompt is cached than where it would have to be computed.
WORK_FACTOR = 1.10
SPARE_CACHED, SPARE_FRESH = 4, 1
#: Where a prompt fits nowhere, replicas with this many requests above the mean are still taken as equally busy.
EQUALLY_BUSY = 2
#: The part of a request's work that every request has; the rest grows with its prompt. Together 1 in the mean.
REQUEST_WEIGHT = 0.5
#: How many of a model's requests back "recent work" goes.
WORK_WINDOW = 1000
#: How many of a model's requests back the share of a beginning is counted, and the share of one replica's fair part
#: from which on it is everybody's.
SHARE_WINDOW = 256
COMMON_SHARE = 0.5
#: The fraction of requests whose past is known below which there is nothing to be won, and only load counts.
MIN_REUSE = 0.01

#: Bytes in the shortest beginning; 64 tokens or so, which nobody misses in a cache.
BLOCK_BYTES = 256
#: Longer beginnings are not looked at: two prompts that share so much are neighbours anyway.
MAX_BYTES = 1024 * 1024

_64_BITS = (1 << 64) - 1


class Replica(Protocol):
    """What can be chosen."""

    @property
    def key(self) -> str:
        """Its name, the same for every gateway and as long as it lives."""


ReplicaT = TypeVar("ReplicaT", bound=Replica)


@dataclass(slots=True)
class _Load:
    """What one replica has to do, as far as this gateway knows."""

    seed: int
    work: float
    """What it was given lately: a request with a prompt of mean size is 1."""
    in_flight: int = 0


#: What is remembered of a beginning of prompts, or of a session: the replica that answered last, how often it was asked
#: lately, and the number of the model's request that did so last. A bare tuple, as there are dozens for a long prompt.
_Memory = tuple[str, float, int]


class _Traffic:
    """One model's requests and replicas."""

    def __init__(self, model: str) -> None:
        self.seed = _seed(model)
        self.requests = 0
        self.reuse = 1.0
        self.mean_bytes = 0.0
        self.loads: dict[str, _Load] = {}

    def among(self, keys: Sequence[str]) -> list[_Load]:
        """The loads of the replicas ``keys``, with one request more of them in the past."""
        loads = self.loads
        if any(key not in loads for key in keys) or len(loads) > len(keys):
            self._meet(keys)
        chosen = [loads[key] for key in keys]
        for load in chosen:
            load.work *= 1 - 1 / WORK_WINDOW
        return chosen

    def _meet(self, keys: Sequence[str]) -> None:
        """Take in new replicas, with the others' mean of work so that they get their share and no rush; forget old."""
        alive = set(keys)
        known = [load.work for key, load in self.loads.items() if key in alive]
        # What is still at work there ends one day, and must not be taken off a replica that came back meanwhile.
        for key in [key for key, load in self.loads.items() if key not in alive and not load.in_flight]:
            del self.loads[key]
        for key in keys:
            if key not in self.loads:
                self.loads[key] = _Load(_seed(key), sum(known) / len(known) if known else 0.0)

    def took(self, load: _Load, size: int, *, known: bool) -> None:
        """Note that ``load`` got a prompt of ``size`` bytes."""
        self.mean_bytes += (size - self.mean_bytes) / min(self.requests, WORK_WINDOW)
        load.work += REQUEST_WEIGHT + (1 - REQUEST_WEIGHT) * size / max(self.mean_bytes, 1)
        load.in_flight += 1
        self.reuse += (known - self.reuse) / SHARE_WINDOW


class Affinity:
    """Chooses among the replicas of models, and remembers what it chose."""

    def __init__(self, max_entries: int) -> None:
        """``max_entries``: beginnings and sessions that are remembered, over all models; with 0 only load counts."""
        self._max_entries = max_entries
        self._seen: OrderedDict[int, _Memory] = OrderedDict()
        # The names are the routing table's, so these are few.
        self._traffic: dict[str, _Traffic] = {}

    def choose(
        self,
        model: str,
        prefix: bytes,
        session: str | None,
        targets: Sequence[ReplicaT],
        adapter: str | None = None,
    ) -> ReplicaT:
        """The replica for a prompt that begins with ``prefix``; it has one request more until ``done``.

        Raises:
            ValueError: there are no ``targets``.
        """
        keys = beginnings(prefix) if self._max_entries and len(targets) > 1 else ()
        return self.choose_by_keys(model, keys, len(prefix), session, targets, adapter)

    def choose_by_keys(
        self,
        model: str,
        keys: Iterable[int],
        size: int,
        session: str | None,
        targets: Sequence[ReplicaT],
        adapter: str | None = None,
    ) -> ReplicaT:
        """The same for a prompt of ``size`` bytes whose beginnings have ``keys``, the shortest first.

        Raises:
            ValueError: there are no ``targets``.
        """
        if not targets:
            raise ValueError("There is no replica to choose from.")
        traffic = self._traffic.get(model)
        if traffic is None:
            traffic = self._traffic[model] = _Traffic(model)
        traffic.requests += 1
        names = [target.key for target in targets]
        loads = traffic.among(names)
        if len(targets) == 1:
            traffic.took(loads[0], size, known=True)
            return targets[0]

        now = traffic.requests
        common = COMMON_SHARE * SHARE_WINDOW / len(targets)
        # What an adapter has computed for a prompt is of no use to others.
        seed = traffic.seed ^ _seed(f"adapter\0{adapter}") if adapter else traffic.seed
        path = [key ^ seed for key in keys]
        heats, own, home = self._recall(path, now, common, names)
        session_path = [_seed(session) ^ traffic.seed] if session and self._max_entries else []
        session_heats, _, session_home = self._recall(session_path, now, math.inf, names)
        if session_path and sum(session_heats) < common:
            own, home = session_path[0], session_home or home
        else:  # none, or one for many, such as a cache key of a whole application
            home = home or session_home
        adapter_path = [seed] if adapter and self._max_entries else []
        adapter_heats, _, adapter_home = self._recall(adapter_path, now, math.inf, names)
        if adapter_path:
            own, home = seed, home or adapter_home
        index = _fitting(loads, names.index(home) if home else None, own if traffic.reuse >= MIN_REUSE else None)
        traffic.took(loads[index], size, known=home is not None)
        self._remember(path, heats, names[index], now)
        self._remember(session_path, session_heats, names[index], now)
        self._remember(adapter_path, adapter_heats, names[index], now)
        return targets[index]

    def done(self, model: str, target: Replica) -> None:
        """A request that was sent to ``target`` has ended, in whatever way."""
        traffic = self._traffic.get(model)
        load = traffic.loads.get(target.key) if traffic else None
        if load and load.in_flight:
            load.in_flight -= 1

    def __len__(self) -> int:
        return len(self._seen)

    def _recall(
        self, path: list[int], now: int, common: float, names: list[str]
    ) -> tuple[list[float], int | None, str | None]:
        """What is known of a prompt.

        How often each known beginning was asked lately, the first that is not common (known or not), and the living
        replica of the longest that is neither common nor unknown.
        """
        heats: list[float] = []
        own: int | None = None
        home: str | None = None
        for key in path:
            known = self._seen.get(key)
            if known is None:
                # Longer ones were remembered with this one and forgotten before it.
                return heats, key if own is None else own, home
            replica, heat, last = known
            # At a steady share of the requests this becomes that share of the window.
            heat *= max(0.0, 1 - (now - last) / SHARE_WINDOW)
            heats.append(heat)
            if heat < common:
                own = key if own is None else own
                home = replica if replica in names else home
        return heats, own, home

    def _remember(self, path: list[int], heats: list[float], replica: str, now: int) -> None:
        """Store who answers a prompt with the beginnings ``path``, the shortest last, so that it is forgotten last."""
        seen = self._seen
        first = (replica, 1.0, now)
        for key in reversed(path[len(heats) :]):
            seen[key] = first
        for key, heat in zip(reversed(path[: len(heats)]), reversed(heats), strict=True):
            seen[key] = (replica, heat + 1, now)
            seen.move_to_end(key)
        while len(seen) > self._max_entries:
            seen.popitem(last=False)


def beginnings(prefix: bytes) -> list[int]:
    """The keys of a prompt's beginnings, the shortest first. What follows the last of them is not looked at.

    A checksum is enough: two that are equal by chance, or because somebody made them so, share a replica and no more.
    """
    view = memoryview(prefix)
    keys: list[int] = []
    checksum = start = 0
    for end in _ENDS:
        if end > len(view):
            break
        checksum = crc32(view[start:end], checksum)
        keys.append(end << 32 | checksum)
        start = end
    return keys


def ends(limit: int) -> list[int]:
    """Where beginnings end, in blocks: after each of the first eight, then four in every doubling, up to ``limit``."""
    found: list[int] = []
    step, end = 1, 1
    while end <= limit:
        found.append(end)
        if end >= 8 * step:
            step *= 2
        end += step
    return found


_ENDS = tuple(blocks * BLOCK_BYTES for blocks in ends(MAX_BYTES // BLOCK_BYTES))


def _fitting(loads: list[_Load], home: int | None, own: int | None) -> int:
    """The index of the load that takes a request: its home, else where the hash ``own`` leads, else who has least."""
    mean_in_flight = sum(load.in_flight for load in loads) / len(loads)
    mean_work = sum(load.work for load in loads) / len(loads)
    most_in_flight = IN_FLIGHT_FACTOR * mean_in_flight + SPARE_IN_FLIGHT
    if home is not None:
        load = loads[home]
        # Nothing is taken from a replica that is idle.
        if not load.in_flight or (
            load.in_flight <= most_in_flight and load.work <= WORK_FACTOR * mean_work + SPARE_CACHED
        ):
            return home
    equal = 0.0
    if own is not None:
        favourite = max(range(len(loads)), key=lambda index: _mixed(own ^ loads[index].seed))
        load = loads[favourite]
        if load.in_flight <= most_in_flight and load.work <= WORK_FACTOR * mean_work + SPARE_FRESH:
            return favourite
        equal = mean_in_flight + EQUALLY_BUSY
    return min(range(len(loads)), key=lambda index: (max(loads[index].in_flight, equal), loads[index].work))


def _seed(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest())


def _mixed(key: int) -> int:
    """A hash of 64 bits (the end of splitmix64)."""
    key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 & _64_BITS
    key = (key ^ key >> 27) * 0x94D049BB133111EB & _64_BITS
    return key ^ key >> 31
