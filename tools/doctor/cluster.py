"""What the doctor looks at in a cluster, read through kubectl; nothing is changed."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tools.doctor.quantity import Amounts, amounts

#: What ``kubectl`` prints for some arguments.
Ask = Callable[..., str]

#: Without the schemas, which are megabytes.
DEFINITIONS = """{{range .items}}{{.metadata.name}}{{range .spec.versions}}{{if .served}} {{.name}}{{end}}{{end}}
{{end}}"""
IMAGES = """{{range .items}}{{.metadata.name}} {{(index .spec.template.spec.containers 0).image}}
{{end}}"""
NODE_POOLS = "nodepools.karpenter.sh"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


@dataclass(frozen=True)
class Node:
    """A node: what selects it, and what pods may have there."""

    labels: dict[str, str]
    allocatable: Amounts
    runtime: str = ""
    """Of its containers, as ``containerd://2.1.4``."""


@dataclass(frozen=True)
class Allowance:
    """How much there may be, and is: a ResourceQuota, or a NodePool's limits."""

    name: str
    hard: Amounts
    used: Amounts


@dataclass(frozen=True)
class Bounds:
    """What a LimitRange says of every container (``Container``) or pod (``Pod``)."""

    name: str
    kind: str
    most: Amounts
    limits: Amounts
    """Of a container that has none of its own."""


@dataclass(frozen=True)
class Cluster:
    """What there is."""

    kubernetes: str
    definitions: dict[str, list[str]]
    """Custom resources, ``<plural>.<group>``, and their served versions."""
    images: dict[str, str]
    """The first image of every Deployment, by the Deployment's name."""
    storage_classes: dict[str, bool]
    """Whether each is the default."""
    nodes: list[Node]
    node_pools: dict[str, Allowance]
    """Karpenter's, by name."""
    quotas: list[Allowance]
    """Of the release's namespace; without those that count some pods only."""
    bounds: list[Bounds]
    """Of the release's namespace."""
    api_groups: set[str]
    image_volumes: bool | None = None
    """Whether the API server has the feature gate on; None if it was not asked, or does not say."""


def read(ask: Ask, *, image_volumes: bool = False) -> Cluster:
    """Ask a cluster; about ``image_volumes`` only if a release has any, since that is a long answer.

    Raises:
        Exception: whatever ``ask`` raises where it cannot be asked.
    """
    definitions = _fields(ask("get", "crds", f"--output=go-template={DEFINITIONS}"))
    pools = _items(ask("get", NODE_POOLS, "--output=json")) if NODE_POOLS in definitions else []
    classes = _items(ask("get", "storageclasses", "--output=json"))
    return Cluster(
        kubernetes=json.loads(ask("version", "--output=json"))["serverVersion"]["gitVersion"].removeprefix("v"),
        definitions=definitions,
        images={
            name: image
            for name, (image, *_) in _fields(
                ask("get", "deployments", "--all-namespaces", f"--output=go-template={IMAGES}")
            ).items()
        },
        storage_classes={
            one["metadata"]["name"]: one["metadata"].get("annotations", {}).get(DEFAULT_CLASS) == "true"
            for one in classes
        },
        nodes=[
            Node(
                one["metadata"].get("labels", {}),
                amounts(one["status"].get("allocatable")),
                one["status"].get("nodeInfo", {}).get("containerRuntimeVersion", ""),
            )
            for one in _items(ask("get", "nodes", "--output=json"))
        ],
        node_pools={one["metadata"]["name"]: _node_pool(one) for one in pools},
        quotas=[
            Allowance(
                one["metadata"]["name"],
                amounts(one["spec"].get("hard")),
                amounts(one.get("status", {}).get("used")),
            )
            for one in _items(ask("get", "resourcequotas", "--output=json"))
            if not one["spec"].keys() & {"scopes", "scopeSelector"}
        ],
        bounds=[
            Bounds(one["metadata"]["name"], limit["type"], amounts(limit.get("max")), _default_limits(limit))
            for one in _items(ask("get", "limitranges", "--output=json"))
            for limit in one["spec"]["limits"]
            if limit["type"] in ("Container", "Pod")
        ],
        api_groups={
            line.rpartition("/")[2].partition(".")[2] for line in ask("get", "apiservices", "--output=name").split()
        },
        image_volumes=_gate("ImageVolume", ask("get", "--raw=/metrics")) if image_volumes else None,
    )


def _gate(name: str, metrics: str) -> bool | None:
    """Whether the API server's own metrics have a feature gate on."""
    value = re.search(rf'(?m)^kubernetes_feature_enabled{{name="{name}",[^}}]*}} (\d)', metrics)
    return value[1] == "1" if value else None


def _node_pool(pool: dict[str, Any]) -> Allowance:
    used = amounts(pool.get("status", {}).get("resources"))
    return Allowance(pool["metadata"]["name"], amounts(pool["spec"].get("limits")), used)


def _default_limits(limit: dict[str, Any]) -> Amounts:
    """A bound on limits is their default, too."""
    return {**amounts(limit.get("max")), **amounts(limit.get("default"))} if limit["type"] == "Container" else {}


def _fields(printed: str) -> dict[str, list[str]]:
    """Lines of words, by their first."""
    return {words[0]: words[1:] for line in printed.splitlines() if (words := line.split())}


def _items(printed: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(printed)["items"]
    return items
