"""Which nodes a release needs, and what they cost. Pure."""

import math
from dataclasses import dataclass

from tools.plan.release import Pods
from tools.plan.table import Instance, Table


@dataclass(frozen=True)
class Nodes:
    """The nodes of one kind of pod."""

    pods: Pods
    instance: str
    """Its kind; empty if there is none that such a pod fits."""
    least: int
    most: int
    usd: float
    """Of one, an hour."""


def nodes(pods: Pods, table: Table) -> Nodes:
    """The cheapest nodes that ``pods`` fit: with as many GPUs as they are sent to, else without any.

    Pods without GPUs are counted a node each, though Kubernetes may put several on one: the cost is an upper bound.
    """
    fitting = {name: per_node(pods, one, table) for name, one in table.instances.items() if _is_meant(pods, one)}
    fitting = {name: room for name, room in fitting.items() if room}
    if not fitting:
        return Nodes(pods, "", 0, 0, 0)
    name = min(fitting, key=lambda one: table.instances[one].usd)
    room = fitting[name] if pods.gpus else 1
    usd = table.instances[name].usd
    return Nodes(pods, name, math.ceil(pods.least / room), math.ceil(pods.most / room), usd)


def _is_meant(pods: Pods, instance: Instance) -> bool:
    return (instance.gpu, instance.gpus) == (pods.gpu, pods.node_gpus)


def per_node(pods: Pods, instance: Instance, table: Table) -> int:
    """How many of ``pods`` a node has room for."""
    cpu = (instance.cpu - table.reserved.cpu) / pods.cpu if pods.cpu else math.inf
    memory = instance.memory_gi * (1 - table.reserved.memory_share) / pods.memory_gi if pods.memory_gi else math.inf
    gpus = instance.gpus / pods.gpus if pods.gpus else math.inf
    return int(min(cpu, memory, gpus, 110))  # the kubelet's own limit of pods
