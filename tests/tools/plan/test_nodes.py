from typing import get_args

import pytest

from serve_apps.llm.config import AcceleratorType
from tests.tools.plan.releases import cpu_pods, pods
from tools.plan import table
from tools.plan.nodes import nodes, per_node

TABLE = table.read()


def test_the_cheapest_node_that_a_pod_fits_is_taken() -> None:
    assert nodes(pods(), TABLE).instance == "g6e.xlarge"
    assert nodes(pods(cpu=5), TABLE).instance == "g6e.2xlarge"
    assert nodes(cpu_pods(cpu=3, memory_gi=10), TABLE).instance == "m7i.xlarge"
    assert nodes(cpu_pods(cpu=4, memory_gi=16), TABLE).instance == "m7i.2xlarge"


def test_a_node_keeps_some_for_itself() -> None:
    """4 cores and 16 GiB are not there for a pod that asks for all of them."""
    instance = TABLE.instances["m7i.xlarge"]
    assert per_node(cpu_pods(cpu=4, memory_gi=1), instance, TABLE) == 0
    assert per_node(cpu_pods(cpu=1, memory_gi=16), instance, TABLE) == 0
    assert per_node(cpu_pods(cpu=1, memory_gi=4), instance, TABLE) == 3


def test_replicas_share_a_node_with_more_gpus() -> None:
    found = nodes(pods(least=3, most=8, gpus=2, node_gpus=4, cpu=6, memory_gi=48), TABLE)
    assert (found.instance, found.least, found.most) == ("g6e.12xlarge", 2, 4)


def test_a_node_with_more_gpus_than_are_asked_for_is_not_taken() -> None:
    """The worker group's node selector leads to those of its own count."""
    assert nodes(pods(node_gpus=4), TABLE).instance == "g6e.12xlarge"


@pytest.mark.parametrize("more", [{"gpu": "GB300"}, {"node_gpus": 3}, {"memory_gi": 4096}])
def test_without_a_node_there_is_no_price(more: dict[str, object]) -> None:
    assert nodes(pods(**more), TABLE).instance == ""


def test_every_price_is_at_a_kind_of_node_the_chart_may_ask_for() -> None:
    assert {one.gpu for one in TABLE.instances.values()} <= {"", *get_args(AcceleratorType)}
