from collections.abc import Sequence

import pytest

from bench.routing.policies import Replica, RoundRobin
from bench.routing.replay import Cache, Setting, bound, replay
from bench.routing.trace import Request, Trace


class First:
    """Sends everything to the first replica, and notes what ended when the next was chosen."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.seen: list[int] = []

    def choose(self, _request: Request, replicas: Sequence[Replica]) -> Replica:
        self.seen.append(self.in_flight)
        self.in_flight += 1
        return replicas[0]

    def done(self, _replica: Replica) -> None:
        self.in_flight -= 1


def trace(*requests: Request) -> Trace:
    return Trace("made", requests)


def test_a_cache_hits_from_the_beginning_on() -> None:
    cache = Cache(10)
    assert cache.use([1, 2, 3]) == 0
    assert cache.use([1, 2, 4, 3]) == 2
    assert cache.use([5, 1]) == 0


def test_a_cache_forgets_what_was_not_used_longest() -> None:
    cache = Cache(3)
    cache.use([1, 2])
    cache.use([3])
    assert cache.use([1, 2]) == 2
    cache.use([4])
    assert cache.use([3]) == 0


def test_the_bound_is_one_cache_as_large_as_all() -> None:
    requests = [Request(at, 512, 1, (at % 4,)) for at in range(8)]
    assert bound(trace(*requests), Setting(replicas=4, cache_blocks=1)) == 0.5
    assert bound(trace(*requests), Setting(replicas=3, cache_blocks=1)) == 0


def test_a_prompt_waits_for_those_before_it_and_computes_what_is_not_cached() -> None:
    setting = Setting(replicas=1, prefill_tokens_per_s=512, token_s=0.1)
    outcome = replay(trace(Request(0, 1024, 5, (1, 2)), Request(0, 1536, 5, (1, 2, 3))), First, setting)
    assert (outcome.ttft_p50_s, outcome.ttft_p95_s) == (2, 3)
    assert outcome.hit_ratio == pytest.approx(2 / 5)


def test_a_request_ends_after_its_last_token() -> None:
    setting = Setting(replicas=1, prefill_tokens_per_s=512, token_s=0.1)
    times = (0, 1.9, 2.1)
    outcome = replay(trace(*(Request(at, 512, 10, (int(at * 10),)) for at in times)), First, setting)
    policy = outcome.policies[0]
    assert isinstance(policy, First)
    assert policy.seen == [0, 1, 1]


def test_imbalance_is_the_most_divided_by_the_mean() -> None:
    requests = trace(*(Request(at, tokens, 0, (at,)) for at, tokens in enumerate((100, 100, 400, 100))))
    outcome = replay(requests, RoundRobin, Setting(replicas=2))
    assert outcome.imbalance_requests == 1
    assert outcome.imbalance_tokens == pytest.approx(500 / 350)
    assert outcome.imbalance == outcome.imbalance_tokens
    assert replay(requests, First, Setting(replicas=2)).imbalance_requests == 2


def test_gateways_share_the_requests_and_know_only_their_own() -> None:
    requests = trace(*(Request(at, 512, 0, (at,)) for at in range(100)))
    outcome = replay(requests, First, Setting(gateways=2))
    counts = [len(policy.seen) for policy in outcome.policies if isinstance(policy, First)]
    assert sum(counts) == 100
    assert min(counts) > 30


def test_a_replaced_replica_has_an_empty_cache_and_the_same_place() -> None:
    requests = trace(*(Request(at, 512, 0, (1,)) for at in range(4)))
    replaced = replay(requests, First, Setting(replicas=2, replaced=True))
    assert replaced.chosen == ["replica-0", "replica-0", "replica-2", "replica-2"]
    assert (replaced.hit_ratio, replaced.imbalance_requests) == (0.5, 2)
    assert replay(requests, First, Setting(replicas=2)).hit_ratio == 0.75
