"""The goal: at least 94 % of the pooled bound at an imbalance of at most 1.10."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.routing.policies import COMPARED, Ours
from bench.routing.replay import Outcome, Setting, bound, replay
from bench.routing.shapes import agents, applications, fresh, sessions
from bench.routing.trace import Trace, read

#: Beside the clone, where there is one; never in it.
RECORDED = Path(__file__).parents[4] / "shared" / "data" / "traces" / "mooncake_conversation.jsonl"
USUAL = Setting()


def ours(trace: Trace, setting: Setting = USUAL) -> Outcome:
    return replay(trace, lambda: Ours(100_000), setting)


@pytest.fixture(scope="module")
def trace() -> Trace:
    """The recorded trace; without it, one that is made."""
    return read(RECORDED) if RECORDED.exists() else sessions()


def test_the_goal_is_reached(trace: Trace) -> None:
    outcome = ours(trace)
    assert outcome.hit_ratio >= 0.94 * bound(trace, USUAL)
    assert outcome.imbalance <= 1.10


def test_round_robin_does_not_reach_it(trace: Trace) -> None:
    assert replay(trace, COMPARED["round-robin"], USUAL).hit_ratio < 0.94 * bound(trace, USUAL)


@pytest.mark.parametrize("setting", [Setting(replicas=4), Setting(replicas=16), Setting(gateways=2)])
def test_it_is_nearly_reached_in_other_settings(trace: Trace, setting: Setting) -> None:
    outcome = ours(trace, setting)
    assert outcome.hit_ratio >= 0.94 * bound(trace, setting)
    assert outcome.imbalance <= 1.15


def test_a_replaced_replica_costs_its_own_cache_only(trace: Trace) -> None:
    outcome = ours(trace, Setting(replaced=True))
    assert outcome.hit_ratio >= 0.94 * bound(trace, USUAL)
    assert outcome.imbalance <= 1.10


@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("shape", [agents, applications, sessions])
def test_other_shapes_reach_it_too(shape: Callable[[int, int], Trace], seed: int) -> None:
    made = shape(seed, 4000)
    outcome = ours(made)
    assert outcome.hit_ratio >= 0.94 * bound(made, USUAL)
    assert outcome.imbalance <= 1.15


def test_a_system_prompt_of_all_does_not_overload_one_as_hashing_would() -> None:
    made = agents(2, 4000)
    assert replay(made, COMPARED["hash of first blocks"], USUAL).imbalance == 8
    assert ours(made).imbalance <= 1.10


def test_without_reuse_it_is_as_even_and_as_quick_as_least_loaded() -> None:
    made = fresh(2, 6000)
    outcome, least = ours(made), replay(made, COMPARED["least-loaded"], USUAL)
    assert outcome.imbalance <= least.imbalance + 0.02
    assert outcome.ttft_p95_s <= 1.05 * least.ttft_p95_s
