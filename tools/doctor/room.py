"""Whether there is room for a release: nodes with GPUs, quotas, limits. Pure."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from tools.doctor.cluster import Allowance, Bounds, Cluster
from tools.doctor.finding import Finding
from tools.doctor.quantity import spelled
from tools.doctor.wanted import GPU, NODE_POOL, Container, Pods, Wanted

#: Of a release, how many of some pods there are: the least, or the most.
Count = Callable[[Pods], int]


def findings(cluster: Cluster, wanted: Wanted) -> Iterator[Finding]:
    """Everything there is to say about room in ``cluster`` for a release."""
    for pods in wanted.pods:
        if pods.gpus and pods.least:
            yield _nodes(pods, cluster, wanted)
    for pool in sorted({pods.selector[NODE_POOL] for pods in wanted.pods if NODE_POOL in pods.selector}):
        if allowance := _node_pool(pool, cluster, wanted):
            there = [pods for pods in wanted.pods if pods.selector.get(NODE_POOL) == pool]
            yield _allowed(f"NodePool {pool}", allowance, replace(wanted, pods=there, claims=[]))
    if not cluster.quotas:
        yield Finding(True, "ResourceQuota", "none in the namespace")
    for quota in cluster.quotas:
        yield _unlimited(quota, cluster, wanted) or _allowed(f"quota {quota.name}", quota, wanted)
    yield _bounded(cluster, wanted)


def _nodes(pods: Pods, cluster: Cluster, wanted: Wanted) -> Finding:
    """Whether nodes with GPUs have room, or somebody makes them."""
    selector = ", ".join(f"{key}={value}" for key, value in pods.selector.items()) or "no label in particular"
    nodes = [node for node in cluster.nodes if pods.selector.items() <= node.labels.items()]
    asked = {resource: pods.requests(resource) for resource in (GPU, "cpu", "memory")}
    room = sum(
        min(int(node.allocatable.get(resource, 0) / amount) for resource, amount in asked.items() if amount)
        for node in nodes
    )
    pools = {*cluster.node_pools, *wanted.node_pools}
    if room >= pods.least:
        return Finding(True, pods.name, f"{pods.in_words}; nodes with {selector} have room for {room}")
    if (pool := pods.selector.get(NODE_POOL)) in pools:
        return Finding(True, pods.name, f"{pods.in_words}; Karpenter makes their nodes from {pool}")
    if pools and any(key.startswith("karpenter.") for key in pods.selector) and not pool:
        return Finding(True, pods.name, f"{pods.in_words}; Karpenter may make their nodes, with {selector}")
    told = f"{pods.in_words}, and nodes with {selector} have room for {room}"
    return Finding(False, pods.name, f"{told}; add such nodes or a pool of them, or correct the group's nodeSelector")


def _node_pool(name: str, cluster: Cluster, wanted: Wanted) -> Allowance | None:
    """A pool's limits, as the release will have them; None where nobody has such a pool."""
    there = cluster.node_pools.get(name)
    if name in wanted.node_pools:
        return Allowance(name, wanted.node_pools[name], there.used if there else {})
    return there


def _allowed(subject: str, allowance: Allowance, wanted: Wanted) -> Finding:
    """Whether an allowance has room for the release."""
    lacking = list(_lacking(allowance, wanted, lambda pods: pods.least))
    if lacking:
        return Finding(False, subject, f"{'; '.join(lacking)}: raise it, or lower replicas.min and minReplicas")
    lacking = list(_lacking(allowance, wanted, lambda pods: pods.most))
    if lacking:
        return Finding(True, subject, f"room to start; for a release at its largest {'; '.join(lacking)}")
    return Finding(True, subject, "room for the release at its largest")


def _lacking(allowance: Allowance, wanted: Wanted, count: Count) -> Iterator[str]:
    for resource, hard in allowance.hard.items():
        left = hard - allowance.used.get(resource, 0)
        needed = _needed(resource, wanted, count)
        # What a few multiplications are apart is equal.
        if needed > left and not math.isclose(needed, left):
            yield f"{resource}: {spelled(resource, needed)} needed and {spelled(resource, max(0, left))} left"


def _needed(resource: str, wanted: Wanted, count: Count) -> float:
    """What a release takes of a resource, in a quota's or a NodePool's spelling; 0 for what this does not count."""
    claims = [claim.size for claim in wanted.claims]
    storage_class, of_class, in_class = resource.partition(".storageclass.storage.k8s.io/")
    if of_class:
        claims, resource = [one.size for one in wanted.claims if one.storage_class == storage_class], in_class
    match resource.removeprefix("count/"):
        case "pods":
            return sum(count(pods) for pods in wanted.pods)
        case "persistentvolumeclaims":
            return len(claims)
        case "requests.storage":
            return sum(claims)
    _, limited, limit = resource.partition("limits.")
    if limited:
        return _sum(wanted.pods, count, lambda one: one.limits.get(limit, 0))
    return _sum(wanted.pods, count, lambda one: one.requests.get(resource.removeprefix("requests."), 0))


def _sum(pods: Iterable[Pods], count: Count, of_container: Callable[[Container], float]) -> float:
    return sum(count(one) * sum(of_container(container) for container in one.containers) for one in pods)


def _unlimited(quota: Allowance, cluster: Cluster, wanted: Wanted) -> Finding | None:
    """A quota of limits refuses every container that has no such limit, unless a LimitRange gives it one."""
    for resource in quota.hard:
        _, limited, limit = resource.partition("limits.")
        given = any(limit in bounds.limits for bounds in cluster.bounds)
        without = [pods.name for pods in wanted.pods if any(limit not in one.limits for one in pods.containers)]
        if limited and not given and without:
            told = f"{resource} refuses pods without that limit: {', '.join(without)}"
            return Finding(False, f"quota {quota.name}", f"{told}; take it out of the quota, or set their resources")
    return None


def _bounded(cluster: Cluster, wanted: Wanted) -> Finding:
    """Whether a LimitRange refuses a container or a pod, or gives it a limit below what it requests."""
    if not cluster.bounds:
        return Finding(True, "LimitRange", "none in the namespace")
    refused = [line for bounds in cluster.bounds for pods in wanted.pods for line in _beyond(bounds, pods)]
    if refused:
        return Finding(False, "LimitRange", f"{'; '.join(refused)}: raise it, or set their resources")
    return Finding(True, "LimitRange", "room for every container")


def _beyond(bounds: Bounds, pods: Pods) -> Iterator[str]:
    """What of some pods is beyond the bounds."""
    if bounds.kind == "Pod":
        for resource, most in bounds.most.items():
            asked = sum(max(one.requests.get(resource, 0), one.limits.get(resource, 0)) for one in pods.containers)
            if asked > most:
                yield f"{pods.name} needs {resource} {spelled(resource, asked)}, {bounds.name} allows a pod " + spelled(
                    resource, most
                )
        return
    for one in pods.containers:
        for resource in {**bounds.most, **bounds.limits}:
            asked = max(one.requests.get(resource, 0), one.limits.get(resource, 0))
            most = bounds.most.get(resource, math.inf)
            # A default is for those that say nothing.
            most = most if resource in one.limits else min(most, bounds.limits.get(resource, math.inf))
            if asked > most:
                yield (
                    f"{pods.name} needs {resource} {spelled(resource, asked)} for {one.name}, "
                    f"{bounds.name} allows a container {spelled(resource, most)}"
                )
