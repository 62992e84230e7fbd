"""What is well and what is not, one line each. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tools.doctor import room
from tools.doctor.cluster import Cluster
from tools.doctor.finding import Finding
from tools.doctor.wanted import Wanted

#: The NVIDIA driver that the image's CUDA 13 asks for.
#: https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/
DRIVER = 580
#: Labels of NVIDIA's GPU feature discovery with a driver's first number.
DRIVER_LABELS = ("nvidia.com/cuda.driver-version.major", "nvidia.com/cuda.driver.major")
OPERATOR = "kuberay-operator"
#: What mounts images: Kubernetes, without being told to, and containerd.
IMAGE_VOLUMES, IMAGE_VOLUMES_BY_DEFAULT, IMAGE_VOLUMES_IN_CONTAINERD = (1, 33), (1, 35), (2, 1)
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
class Versions:
    """What the chart is made for."""

    kubernetes: str
    """The oldest."""
    tested_kubernetes: str
    kuberay: str
    """The oldest, and the tested one."""
    chart: str
    """The chart's, which is the tag of the images."""
    ray: str
    vllm: str
    """What the images have."""


def findings(cluster: Cluster, wanted: Wanted, versions: Versions) -> Iterator[Finding]:
    """Everything there is to say about ``cluster`` for a release."""
    yield _kubernetes(cluster, versions)
    yield _kuberay(cluster, versions)
    for kind in KINDS:
        yield _kind(kind, cluster, wanted)
    yield _pod_metrics(cluster, wanted)
    yield from _storage(cluster, wanted)
    yield from room.findings(cluster, wanted)
    yield _image_volumes(cluster, wanted)
    yield _driver(cluster)
    yield _images(wanted, versions)


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
    classes = {claim.storage_class for claim in wanted.claims}
    needed = "" in classes
    remedy = "mark one as default, or set storage.className of redis and milvus"
    none = f"none; {remedy}" if needed else "none, and not needed"
    yield Finding(bool(default) or not needed, "default StorageClass", default or none)
    for name in sorted(classes - {""}):
        there = name in cluster.storage_classes
        others = ", ".join(sorted(cluster.storage_classes)) or "none"
        yield Finding(there, "StorageClass", name if there else f"no {name}; there are: {others}")


def _image_volumes(cluster: Cluster, wanted: Wanted) -> Finding:
    subject = "image volumes"
    if not wanted.image_volumes:
        return Finding(True, subject, "not needed")
    version = _numbers(cluster.kubernetes)[:2]
    if version < IMAGE_VOLUMES:
        told = f"Kubernetes {cluster.kubernetes} has none; upgrade it to 1.35, or put the weights on a claim"
        return Finding(False, subject, told)
    if not (version >= IMAGE_VOLUMES_BY_DEFAULT if cluster.image_volumes is None else cluster.image_volumes):
        told = "the feature gate ImageVolume is off; turn it on, for the kubelets too, or upgrade Kubernetes to 1.35"
        return Finding(False, subject, told)
    runtimes = {node.runtime for node in cluster.nodes if node.runtime.startswith("containerd://")}
    old = sorted(runtime for runtime in runtimes if _numbers(runtime)[:2] < IMAGE_VOLUMES_IN_CONTAINERD)
    if old:
        return Finding(False, subject, f"{old[0]} on a node mounts none; containerd 2.1 does: upgrade the nodes")
    return Finding(True, subject, f"Kubernetes {cluster.kubernetes} mounts them")


def _driver(cluster: Cluster) -> Finding:
    majors = [int(node.labels[label]) for node in cluster.nodes for label in DRIVER_LABELS if label in node.labels]
    if not majors:
        return Finding(True, "NVIDIA driver", f"no node says; the image needs {DRIVER} or later")
    if min(majors) < DRIVER:
        told = f"{min(majors)} on a node; CUDA 13 in the image needs {DRIVER}: upgrade it"
        return Finding(False, "NVIDIA driver", told)
    return Finding(True, "NVIDIA driver", f"{min(majors)} or later; the image needs {DRIVER}")


def _images(wanted: Wanted, versions: Versions) -> Finding:
    """Ray and vLLM are released for each other, and every process of a RayCluster needs the same Ray."""
    pair = f"Ray {versions.ray} and vLLM {versions.vllm}"
    tags = {tag.removesuffix("-cpu") for tag in wanted.tags}
    if len(tags) > 1:
        told = f"tags {', '.join(sorted(tags))}; give all images of a RayCluster one version"
        return Finding(False, "Ray and vLLM", told)
    if wanted.ray != versions.ray and tags == {versions.chart}:
        told = f"rayVersion is {wanted.ray}, and the images have {pair}; leave rayVersion out"
        return Finding(False, "Ray and vLLM", told)
    if tags != {versions.chart}:
        return Finding(True, "Ray and vLLM", f"your images {tags.pop()} must have Ray {wanted.ray}; tested: {pair}")
    return Finding(True, "Ray and vLLM", f"{pair}, tested together")
