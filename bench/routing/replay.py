"""Replicas with prefix caches, and what becomes of a trace that is sent to them.

The model of a replica: it computes prompts one after the other, the part that is not in its cache at a steady rate, and
then generates at a steady rate, however many requests it has. Its cache keeps the blocks used last. A prompt's blocks
count as cached from its arrival on.
"""

import heapq
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from bench.gateway.figures import percentile
from bench.routing.policies import Policy, Replica
from bench.routing.trace import BLOCK_TOKENS, Request, Trace

GATEWAY_SEED = 1


@dataclass(frozen=True, slots=True)
class Setting:
    """What a trace is replayed on."""

    replicas: int = 8
    cache_blocks: int = 4000
    """In each replica."""
    gateways: int = 1
    """Each gets a random part of the requests and knows nothing of the others."""
    prefill_tokens_per_s: float = 15_000
    """Prompt tokens that a replica computes a second."""
    token_s: float = 0.02
    """Seconds for each generated token."""
    replaced: bool = False
    """Whether, after half of the requests, another replica with an empty cache takes the place of one."""


class Cache:
    """The blocks a replica used last."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def use(self, blocks: Sequence[int]) -> int:
        """How many of a prompt's ``blocks`` were there, from its beginning on; afterwards all are."""
        hits = next((index for index, block in enumerate(blocks) if block not in self._blocks), len(blocks))
        for block in blocks:
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
        return hits


@dataclass(slots=True)
class _Engine:
    cache: Cache
    free_at_s: float = 0.0
    requests: int = 0
    tokens: int = 0

    def take(self, request: Request, cached_blocks: int, setting: Setting) -> float:
        """Queue a request; when its first token comes, in seconds."""
        computed = max(request.prompt_tokens - cached_blocks * BLOCK_TOKENS, 1)
        self.free_at_s = max(self.free_at_s, request.at_s) + computed / setting.prefill_tokens_per_s
        self.requests += 1
        self.tokens += request.tokens
        return self.free_at_s


@dataclass(slots=True)
class Outcome:
    """What became of a trace."""

    hit_ratio: float
    """Blocks of prompts found in caches, of all."""
    imbalance_requests: float
    """The most requests one replica got, divided by the mean."""
    imbalance_tokens: float
    """The same of prompt and generated tokens."""
    ttft_p50_s: float
    ttft_p95_s: float
    chosen: list[str] = field(repr=False)
    """The replica of each request."""
    policies: list[Policy] = field(repr=False)
    """One for each gateway, as it was at the end."""

    @property
    def imbalance(self) -> float:
        """The worse of the two."""
        return max(self.imbalance_requests, self.imbalance_tokens)


def bound(trace: Trace, setting: Setting) -> float:
    """The hit ratio of one cache as large as all replicas' together."""
    pooled = Cache(setting.replicas * setting.cache_blocks)
    return sum(pooled.use(request.blocks) for request in trace.requests) / max(trace.blocks, 1)


def replay(trace: Trace, policy: Callable[[], Policy], setting: Setting) -> Outcome:
    """Send a trace's requests, at their times, where ``policy`` chooses."""
    chance = random.Random(GATEWAY_SEED)
    gateways = [policy() for _ in range(setting.gateways)]
    replicas = [Replica(f"replica-{number}") for number in range(setting.replicas)]
    engines = {replica.key: _Engine(Cache(setting.cache_blocks)) for replica in replicas}
    # When it ends, a number that breaks ties, who sent it, where to.
    running: list[tuple[float, int, Policy, Replica]] = []
    hits, chosen, ttft = 0, [], []
    for number, request in enumerate(trace.requests):
        if setting.replaced and number == len(trace.requests) // 2:
            replicas = _with_one_replaced(replicas, engines, setting)
        while running and running[0][0] <= request.at_s:
            _, _, gateway, replica = heapq.heappop(running)
            gateway.done(replica)
        gateway = gateways[chance.randrange(len(gateways))]
        replica = gateway.choose(request, replicas)
        engine = engines[replica.key]
        found = engine.cache.use(request.blocks)
        began_at_s = engine.take(request, found, setting)
        heapq.heappush(running, (began_at_s + request.generated_tokens * setting.token_s, number, gateway, replica))
        hits += found
        chosen.append(replica.key)
        ttft.append(began_at_s - request.at_s)
    places = {id(engine): engine for engine in engines.values()}.values()
    return Outcome(
        hit_ratio=hits / max(trace.blocks, 1),
        imbalance_requests=_imbalance([engine.requests for engine in places]),
        imbalance_tokens=_imbalance([engine.tokens for engine in places]),
        ttft_p50_s=percentile(ttft, 50),
        ttft_p95_s=percentile(ttft, 95),
        chosen=chosen,
        policies=gateways,
    )


def _with_one_replaced(replicas: list[Replica], engines: dict[str, _Engine], setting: Setting) -> list[Replica]:
    """The replicas with another in the first one's place, whose counts it goes on with."""
    lost, new = replicas[0], Replica(f"replica-{setting.replicas}")
    engines[new.key] = engines[lost.key]
    engines[new.key].cache = Cache(setting.cache_blocks)
    return [new, *replicas[1:]]


def _imbalance(loads: Sequence[int]) -> float:
    return max(loads) / (fmean(loads) or 1)
