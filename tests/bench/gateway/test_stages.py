from collections.abc import Sequence

import pytest

from bench.gateway import measures
from bench.gateway.stages import GROUPS, STAGES, wanted
from bench.gateway.systems import System

#: What each group starts, as far as it is more than one system of the same name.
STARTED = {
    "stock": ("stock", "handle"),
    "ours": ("ours", "ours-standalone", "proxied"),
    "features": ("features", "features-standalone"),
}


def names(groups: Sequence[str]) -> list[list[str]]:
    """The names of what is measured in each stage."""
    found = []
    for stage, own in wanted(groups):
        up = [System(name, name, 1, dict) for group in own for name in STARTED.get(group, (group,))]
        found.append([system.name for system, _ in stage.planned(up)])
    return found


def test_each_figure_has_one_stage_and_what_is_compared_shares_one() -> None:
    assert names(GROUPS) == [
        ["direct", "haproxy", "vllm-router", "litellm", "ours", "ours-standalone", "proxied"],
        ["vllm-router-beside-features", "features", "features-standalone"],
        ["stock", "handle", "ours-beside-stock"],
        ["stock-beside-features", "handle-beside-features", "features-beside-stock"],
    ]


@pytest.mark.parametrize(
    ("groups", "stages"),
    [
        (["direct", "haproxy"], [["direct", "haproxy"]]),
        (["features"], [["features", "features-standalone"]]),
        (["stock"], [["stock", "handle"]]),
        (["ours"], [["ours", "ours-standalone", "proxied"]]),
        (["ours", "stock"], [["ours", "ours-standalone", "proxied"], ["stock", "handle", "ours-beside-stock"]]),
    ],
)
def test_of_some_groups_each_is_measured_once_unless_two_are_compared(
    groups: list[str], stages: list[list[str]]
) -> None:
    assert names(groups) == stages


def test_at_most_two_ray_nodes_are_up_at_a_time_and_one_beside_the_routers() -> None:
    on_ray = {"stock", "ours", "features"}
    assert [len(on_ray.intersection(stage.groups)) for stage in STAGES] == [1, 1, 2, 2]


def test_the_ceiling_is_sought_of_two_in_the_same_stage() -> None:
    up = [System(name, name, 1, dict) for name in ("stock", "handle", "ours")]
    planned = {system.name: chosen for system, chosen in STAGES[2].planned(up)}
    assert [measures.ceiling in planned[name] for name in ("stock", "handle", "ours-beside-stock")] == [
        True,
        False,
        True,
    ]


def test_who_is_measured_again_is_told_apart_by_its_title() -> None:
    (system, _), *_ = STAGES[1].planned([System("vllm-router", "vllm-router 1", 1, dict)])
    assert system.title == "vllm-router 1, beside the gateway with auth + limits + metering"
