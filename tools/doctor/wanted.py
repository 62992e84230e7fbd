"""What a release asks of a cluster, read off its rendered objects. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tools.plan.release import read


@dataclass(frozen=True)
class Place:
    """Where pods with GPUs have to go."""

    name: str
    pods: int
    """So many at least."""
    gpus: int
    """Of each."""
    selector: dict[str, str]


@dataclass(frozen=True)
class Wanted:
    """What has to be there."""

    kinds: dict[str, str]
    """Kinds of objects and their ``apiVersion``."""
    storage_classes: set[str]
    """By name; empty for the default one."""
    places: list[Place]
    node_pools: set[str]
    """Karpenter's that come with the release."""


def wanted(objects: Sequence[dict[str, Any]]) -> Wanted:
    """Of `tools.plan.release.render`'s objects."""
    selectors = {}
    for one in objects:
        spec = one.get("spec", {})
        if one["kind"] == "RayService":
            for group in spec["rayClusterConfig"]["workerGroupSpecs"]:
                selectors[f"workerGroups.{group['groupName']}"] = group["template"]["spec"].get("nodeSelector", {})
        if one["kind"] == "Deployment":
            template = spec["template"]
            name = template["metadata"]["labels"].get("llm-serving/model")
            selectors[f"models.{name}"] = template["spec"].get("nodeSelector", {})
    claims = [
        claim["spec"].get("storageClassName", "")
        for one in objects
        for claim in one.get("spec", {}).get("volumeClaimTemplates", ())
    ]
    return Wanted(
        kinds={one["kind"]: one["apiVersion"] for one in objects if "apiVersion" in one},
        storage_classes=set(claims),
        places=[
            Place(pods.name, pods.least, pods.gpus, selectors.get(pods.name, {}))
            for pods in read(objects).pods
            if pods.gpus and pods.least
        ],
        node_pools={one["metadata"]["name"] for one in objects if one["kind"] == "NodePool"},
    )
