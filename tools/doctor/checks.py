"""What is well and what is not, one line each. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tools.doctor.cluster import Cluster
from tools.doctor.wanted import Place, Wanted

#: The NVIDIA driver that the image's CUDA 13 asks for.
#: https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/
DRIVER = 580
#: Labels of NVIDIA's GPU feature discovery with a driver's first number.
DRIVER_LABELS = ("nvidia.com/cuda.driver-version.major", "nvidia.com/cuda.driver.major")
OPERATOR = "kuberay-operator"
#: What reads or makes the kinds of objects that are not Kubernetes' own: their custom resources, and how to get them.
KINDS: Mapping[str, tuple[str, str]] = {
    "RayService": ("rayservices.ray.io", "install the chart kuberay-operator"),
    "NodePool": ("nodepools.karpenter.sh", "install Karpenter, or leave nodePools out"),
    "EC2NodeClass": ("ec2nodeclasses.karpenter.k8s.aws", "install Karpenter for AWS, or leave nodeClasses out"),
    "PodMonitor": (
        "podmonitors.monitoring.coreos.com",
        "install prometheus-operator, or turn monitoring.podMonitor off",
    ),
    "ServiceMonitor": (
        "servicemonitors.monitoring.coreos.com",
        "install prometheus-operator, or turn monitoring.serviceMonitor off",
    ),
    "PrometheusRule": (
        "prometheusrules.monitoring.coreos.com",
        "install prometheus-operator, or turn monitoring.alerts off",
    ),
    "ExternalSecret": (
        "externalsecrets.external-secrets.io",
        "install the External Secrets Operator, or name existing Secrets",
    ),
    "ScaledObject": ("scaledobjects.keda.sh", "install KEDA, or set standalone.autoscaler to hpa"),
    "HTTPRoute": ("httproutes.gateway.networking.k8s.io", "install the Gateway API's custom resources"),
}


@dataclass(frozen=True)
class Finding:
    """One line: whether it is well, what was looked at, and what there is or what to do."""

    well: bool
    subject: str
    told: str

    def __str__(self) -> str:
        return f"{'ok ' if self.well else 'fix'}  {self.subject:20} {self.told}"


@dataclass(frozen=True)
class Versions:
    """What the chart is made for."""

    kubernetes: str
    """The oldest."""
    tested_kubernetes: str
    kuberay: str
    """The oldest, and the tested one."""


def findings(cluster: Cluster, wanted: Wanted, versions: Versions) -> Iterator[Finding]:
    """Everything there is to say about ``cluster`` for a release."""
    yield _kubernetes(cluster, versions)
    yield _kuberay(cluster, versions)
    for kind in KINDS:
        yield _kind(kind, cluster, wanted)
    yield _pod_metrics(cluster, wanted)
    yield from _storage(cluster, wanted)
    for place in wanted.places:
        yield _place(place, cluster, wanted)
    yield _driver(cluster)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("-")[0])[:3])


def _kubernetes(cluster: Cluster, versions: Versions) -> Finding:
    if _numbers(cluster.kubernetes)[:2] < _numbers(versions.kubernetes)[:2]:
        return Finding(False, "Kubernetes", f"{cluster.kubernetes} is older than {versions.kubernetes}; upgrade it")
    return Finding(True, "Kubernetes", f"{cluster.kubernetes}; tested with {versions.tested_kubernetes}")


def _kuberay(cluster: Cluster, versions: Versions) -> Finding:
    image = cluster.images.get(OPERATOR)
    if image is None:
        told = f"no Deployment {OPERATOR}; install the chart {OPERATOR} {versions.kuberay}"
        return Finding(False, "KubeRay", told)
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2].removeprefix("v")
    if not re.match(r"\d+\.\d+\.\d+", tag):
        return Finding(True, "KubeRay", f"{image}, of unknown version; {versions.kuberay} or later is needed")
    if _numbers(tag) < _numbers(versions.kuberay):
        return Finding(False, "KubeRay", f"{tag} is older than {versions.kuberay}; upgrade {OPERATOR} and its CRDs")
    return Finding(True, "KubeRay", f"{tag}; tested with {versions.kuberay}")


def _kind(kind: str, cluster: Cluster, wanted: Wanted) -> Finding:
    definition, remedy = KINDS[kind]
    served = cluster.definitions.get(definition)
    version = wanted.kinds.get(kind, "").rpartition("/")[2]
    if served is None:
        return Finding(not version, kind, f"not there; {remedy}" if version else "not there, and not needed")
    if version and version not in served:
        return Finding(False, kind, f"served in {', '.join(served)}, needed in {version}; upgrade its CRDs")
    return Finding(True, kind, f"served in {', '.join(served)}")


def _pod_metrics(cluster: Cluster, wanted: Wanted) -> Finding:
    there = any(group == "custom.metrics.k8s.io" for group in cluster.api_groups)
    if there or "HorizontalPodAutoscaler" not in wanted.kinds:
        return Finding(True, "pods' metrics", "offered" if there else "not offered, and not needed")
    remedy = "install prometheus-adapter with the rule of docs/choosing.md, or set standalone.autoscaler to keda"
    return Finding(False, "pods' metrics", f"nobody offers custom.metrics.k8s.io; {remedy}")


def _storage(cluster: Cluster, wanted: Wanted) -> Iterator[Finding]:
    default = next((name for name, is_default in cluster.storage_classes.items() if is_default), "")
    needed = "" in wanted.storage_classes
    none = "none; mark one as default, or set redis.storage.className" if needed else "none, and not needed"
    yield Finding(bool(default) or not needed, "default StorageClass", default or none)
    for name in sorted(wanted.storage_classes - {""}):
        there = name in cluster.storage_classes
        others = ", ".join(sorted(cluster.storage_classes)) or "none"
        yield Finding(there, "StorageClass", name if there else f"no {name}; there are: {others}")


def _place(place: Place, cluster: Cluster, wanted: Wanted) -> Finding:
    selector = ", ".join(f"{key}={value}" for key, value in place.selector.items()) or "no label in particular"
    needed = f"{place.pods} pods of {place.gpus} GPUs"
    nodes = [node for node in cluster.nodes if place.selector.items() <= node.labels.items()]
    room = sum(node.gpus // place.gpus for node in nodes)
    pools = {*cluster.node_pools, *wanted.node_pools}
    if room >= place.pods:
        return Finding(True, place.name, f"{needed}; nodes with {selector} have room for {room}")
    if (pool := place.selector.get("karpenter.sh/nodepool")) in pools:
        return Finding(True, place.name, f"{needed}; Karpenter makes their nodes from {pool}")
    if pools and any(key.startswith("karpenter.") for key in place.selector) and not pool:
        return Finding(True, place.name, f"{needed}; Karpenter may make their nodes, with {selector}")
    told = f"{needed}, and nodes with {selector} have room for {room}"
    return Finding(False, place.name, f"{told}; add such nodes or a pool of them, or correct the group's nodeSelector")


def _driver(cluster: Cluster) -> Finding:
    majors = [int(node.labels[label]) for node in cluster.nodes for label in DRIVER_LABELS if label in node.labels]
    if not majors:
        return Finding(True, "NVIDIA driver", f"no node says; the image needs {DRIVER} or later")
    if min(majors) < DRIVER:
        told = f"{min(majors)} on a node; CUDA 13 in the image needs {DRIVER}: upgrade it"
        return Finding(False, "NVIDIA driver", told)
    return Finding(True, "NVIDIA driver", f"{min(majors)} or later; the image needs {DRIVER}")
