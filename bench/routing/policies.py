"""Ways to choose a replica: the gateway's own class, and what it is compared with."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.routing.trace import Request
from serve_apps.gateway.affinity import Affinity

MODEL = "model"


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica, by its name."""

    key: str


class Policy(Protocol):
    """What a gateway does."""

    def choose(self, request: Request, replicas: Sequence[Replica], /) -> Replica:
        """Who gets ``request``."""

    def done(self, replica: Replica) -> None:
        """One of its requests has ended."""


class RoundRobin:
    """One after the other."""

    def __init__(self) -> None:
        self._turn = -1

    def choose(self, _request: Request, replicas: Sequence[Replica]) -> Replica:
        self._turn += 1
        return replicas[self._turn % len(replicas)]

    def done(self, replica: Replica) -> None:
        pass


class LeastLoaded:
    """Who has the fewest requests in flight; ties take turns."""

    def __init__(self) -> None:
        self._turn = 0
        self._in_flight: Counter[str] = Counter()

    def choose(self, _request: Request, replicas: Sequence[Replica]) -> Replica:
        self._turn += 1
        turned = [replicas[(self._turn + offset) % len(replicas)] for offset in range(len(replicas))]
        chosen = min(turned, key=lambda replica: self._in_flight[replica.key])
        self._in_flight[chosen.key] += 1
        return chosen

    def done(self, replica: Replica) -> None:
        self._in_flight[replica.key] -= 1


class HashOfFirstBlocks:
    """Where the hash of the first two blocks leads, whatever the load."""

    BLOCKS = 2

    def choose(self, request: Request, replicas: Sequence[Replica]) -> Replica:
        digest = hashlib.blake2b(repr(request.blocks[: self.BLOCKS]).encode(), digest_size=8).digest()
        return replicas[int.from_bytes(digest) % len(replicas)]

    def done(self, replica: Replica) -> None:
        pass


class Ours:
    """The gateway's class, fed with bytes as the gateway feeds it."""

    def __init__(self, max_entries: int) -> None:
        self.affinity = Affinity(max_entries)
        self.decisions_us: list[float] = []
        """How long each choice took on the clock, the prompt's hashing included."""
        self.decisions_cpu_us: list[float] = []
        """The same in CPU time, which other programs on the machine do not add to."""

    def choose(self, request: Request, replicas: Sequence[Replica]) -> Replica:
        prompt = request.prompt()
        begin, cpu_begin = time.perf_counter_ns(), time.thread_time_ns()
        chosen = self.affinity.choose(MODEL, prompt, None, replicas)
        self.decisions_cpu_us.append((time.thread_time_ns() - cpu_begin) / 1000)
        self.decisions_us.append((time.perf_counter_ns() - begin) / 1000)
        return chosen

    def done(self, replica: Replica) -> None:
        self.affinity.done(MODEL, replica)


COMPARED: dict[str, Callable[[], Policy]] = {
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "hash of first blocks": HashOfFirstBlocks,
}
