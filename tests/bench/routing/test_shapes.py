from itertools import pairwise

import pytest

from bench.routing.shapes import SHAPES, agents, applications, fresh, sessions


@pytest.mark.parametrize("name", SHAPES)
def test_a_seed_makes_one_trace(name: str) -> None:
    shape = SHAPES[name]
    trace = shape()
    assert trace == shape()
    assert trace.name == name
    assert all(one.at_s <= other.at_s for one, other in pairwise(trace.requests))


def test_another_seed_makes_another_trace() -> None:
    assert agents(1, 100) != agents(2, 100)


def test_agents_share_one_system_prompt() -> None:
    assert len({request.blocks[:20] for request in agents(requests=300).requests}) == 1


def test_applications_share_several_and_some_more_than_others() -> None:
    systems = [request.blocks[:15] for request in applications(requests=2000).requests]
    shares = sorted((systems.count(system) / len(systems) for system in set(systems)), reverse=True)
    assert len(shares) == 20
    assert shares[0] > 5 * shares[-1]


def test_sessions_grow_and_share_nothing_with_others() -> None:
    conversations: dict[int, list[tuple[int, ...]]] = {}
    for request in sessions(requests=1000).requests:
        conversations.setdefault(request.blocks[0], []).append(request.blocks)
    assert len(conversations) > 10
    for turns in conversations.values():
        assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(turns))
    blocks = [set(turns[-1]) for turns in conversations.values()]
    assert sum(map(len, blocks)) == len(set().union(*blocks))


def test_fresh_prompts_share_nothing() -> None:
    trace = fresh(requests=500)
    assert trace.blocks == len({block for request in trace.requests for block in request.blocks})
    assert len({len(request.blocks) for request in trace.requests}) > 20
