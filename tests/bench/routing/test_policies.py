from collections import Counter

from bench.routing.policies import HashOfFirstBlocks, LeastLoaded, Ours, Replica, RoundRobin
from bench.routing.trace import Request

REPLICAS = [Replica(f"replica-{number}") for number in range(4)]


def request(*blocks: int) -> Request:
    return Request(0, 512 * len(blocks), 10, blocks)


def test_round_robin_takes_turns() -> None:
    policy = RoundRobin()
    assert [policy.choose(request(1), REPLICAS) for _ in range(5)] == [*REPLICAS, REPLICAS[0]]


def test_least_loaded_goes_where_something_ended() -> None:
    policy = LeastLoaded()
    assert Counter(policy.choose(request(1), REPLICAS) for _ in range(8)) == dict.fromkeys(REPLICAS, 2)
    policy.done(REPLICAS[2])
    assert policy.choose(request(1), REPLICAS) == REPLICAS[2]


def test_the_hash_of_the_first_blocks_does_not_see_the_third() -> None:
    policy = HashOfFirstBlocks()
    assert len({policy.choose(request(1, 2, third), REPLICAS) for third in range(50)}) == 1
    assert len({policy.choose(request(1, second, 3), REPLICAS) for second in range(50)}) == 4


def test_ours_is_the_gateways_class_fed_with_text() -> None:
    policy = Ours(1000)
    first = policy.choose(request(1, 2), REPLICAS)
    policy.done(first)
    assert policy.choose(request(1, 2, 3), REPLICAS) == first
    assert len(policy.affinity) > 0
    assert len(policy.decisions_us) == len(policy.decisions_cpu_us) == 2
