"""What the doctor looks at in a cluster, read through kubectl; nothing is changed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    """A node: what selects it, and the GPUs that pods may have there."""

    labels: dict[str, str]
    gpus: int


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
    node_pools: list[str]
    """Karpenter's."""
    api_groups: set[str]


def read(ask: Ask) -> Cluster:
    """Ask a cluster.

    Raises:
        Exception: whatever ``ask`` raises where it cannot be asked.
    """
    definitions = _fields(ask("get", "crds", f"--output=go-template={DEFINITIONS}"))
    pools = ask("get", NODE_POOLS, "--output=name") if NODE_POOLS in definitions else ""
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
            Node(one["metadata"].get("labels", {}), int(one["status"].get("allocatable", {}).get("nvidia.com/gpu", 0)))
            for one in _items(ask("get", "nodes", "--output=json"))
        ],
        node_pools=[line.rpartition("/")[2] for line in pools.split()],
        api_groups={
            line.rpartition("/")[2].partition(".")[2] for line in ask("get", "apiservices", "--output=name").split()
        },
    )


def _fields(printed: str) -> dict[str, list[str]]:
    """Lines of words, by their first."""
    return {words[0]: words[1:] for line in printed.splitlines() if (words := line.split())}


def _items(printed: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(printed)["items"]
    return items
