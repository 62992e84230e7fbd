"""What a release asks of a cluster, read off its rendered objects. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tools.doctor.quantity import GI, Amounts, amounts
from tools.plan.release import read

GPU = "nvidia.com/gpu"
NODE_POOL = "karpenter.sh/nodepool"


@dataclass(frozen=True)
class Container:
    """A container's resources."""

    name: str
    requests: Amounts
    limits: Amounts


#: What KubeRay puts beside the head, as its autoscalerOptions have it by default.
AUTOSCALER = Container("autoscaler", {"cpu": 0.5, "memory": 0.5 * GI}, {"cpu": 0.5, "memory": 0.5 * GI})


@dataclass(frozen=True)
class Pods:
    """The pods of one kind that stay, where there may be any."""

    name: str
    least: int
    most: int
    containers: list[Container]
    selector: dict[str, str]
    """What their nodes bear."""

    def requests(self, resource: str) -> float:
        """What one of them requests."""
        return sum(one.requests.get(resource, 0) for one in self.containers)

    @property
    def gpus(self) -> int:
        """GPUs of one."""
        return int(self.requests(GPU))

    @property
    def in_words(self) -> str:
        """What the least of them ask for."""
        memory = self.requests("memory") / GI
        return f"{self.least} pods of {self.gpus} GPUs, {self.requests('cpu'):g} CPUs and {memory:.4g}Gi"


@dataclass(frozen=True)
class Claim:
    """A PersistentVolumeClaim that comes with the release."""

    storage_class: str
    """Empty for the default one."""
    size: float


@dataclass(frozen=True)
class Wanted:
    """What has to be there."""

    kinds: dict[str, str]
    """Kinds of objects and their ``apiVersion``."""
    claims: list[Claim]
    pods: list[Pods]
    node_pools: dict[str, Amounts]
    """The limits of Karpenter's that come with the release."""
    ray: str
    """The version that KubeRay is told."""
    tags: set[str]
    """Of the images with Ray."""
    image_volumes: bool = False
    """Whether pods mount images with weights."""


def wanted(objects: Sequence[dict[str, Any]]) -> Wanted:
    """Of `tools.plan.release.render`'s objects."""
    templates = dict(_templates(objects))
    (service,) = (one for one in objects if one["kind"] == "RayService")
    ray_pods = [template for name, template in templates.items() if name.startswith(("head", "workerGroups."))]
    return Wanted(
        kinds={one["kind"]: one["apiVersion"] for one in objects if "apiVersion" in one},
        claims=[
            Claim(
                claim["spec"].get("storageClassName", ""),
                amounts(claim["spec"]["resources"]["requests"])["storage"],
            )
            for one in objects
            for claim in one.get("spec", {}).get("volumeClaimTemplates", ())
        ],
        pods=[
            Pods(
                pods.name,
                pods.least,
                pods.most,
                [*_containers(templates[pods.name]), *([AUTOSCALER] if pods.name == "head" else [])],
                templates[pods.name]["spec"].get("nodeSelector", {}),
            )
            for pods in read(objects).pods
            if pods.most
        ],
        node_pools={
            one["metadata"]["name"]: amounts(one["spec"].get("limits")) for one in objects if one["kind"] == "NodePool"
        },
        ray=service["spec"]["rayClusterConfig"]["rayVersion"],
        tags={template["spec"]["containers"][0]["image"].rpartition(":")[2] for template in ray_pods},
        image_volumes=any(
            "image" in volume for template in templates.values() for volume in template["spec"].get("volumes", ())
        ),
    )


def _templates(objects: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod template, by the name that the chart's own count of pods has for it."""
    for one in objects:
        spec = one.get("spec", {})
        if one["kind"] == "RayService":
            cluster = spec["rayClusterConfig"]
            yield "head", cluster["headGroupSpec"]["template"]
            for group in cluster["workerGroupSpecs"]:
                yield f"workerGroups.{group['groupName']}", group["template"]
        elif one["kind"] == "RayJob":
            labels, cluster = one["metadata"]["labels"], spec["rayClusterSpec"]
            job = labels.get("llm-serving/batch-job")
            name = f"batch.jobs.{job}" if job else f"rag.{labels['llm-serving/ingest']}.ingest"
            yield f"{name}.head", cluster["headGroupSpec"]["template"]
            (workers,) = cluster["workerGroupSpecs"]
            yield name, workers["template"]
        elif one["kind"] in ("Deployment", "StatefulSet"):
            labels = spec["template"]["metadata"]["labels"]
            model = labels.get("llm-serving/model")
            yield f"models.{model}" if model else labels["app.kubernetes.io/component"], spec["template"]


def _containers(template: dict[str, Any]) -> Iterator[Container]:
    for one in template["spec"]["containers"]:
        limits = amounts(one.get("resources", {}).get("limits"))
        # What is limited and not requested is requested as it is limited.
        yield Container(one["name"], {**limits, **amounts(one.get("resources", {}).get("requests"))}, limits)
