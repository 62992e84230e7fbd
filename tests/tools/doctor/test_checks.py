"""Each check as a pair: a cluster that is well, and one that is not, with what to do."""

from typing import Any

import pytest

from tests.tools.doctor.clusters import DEFINITIONS, cluster
from tools.doctor.checks import KINDS, Versions, findings
from tools.doctor.cluster import Node
from tools.doctor.wanted import Claim, Wanted

VERSIONS = Versions(
    kubernetes="1.29.0", tested_kubernetes="1.34.4", kuberay="1.6.2", chart="0.1.0", ray="2.60.0", vllm="0.29.0"
)


def wanted(**more: Any) -> Wanted:
    fields: dict[str, Any] = {
        "kinds": {"RayService": "ray.io/v1"},
        "claims": [],
        "pods": [],
        "node_pools": {},
        "ray": "2.60.0",
        "tags": {"0.1.0", "0.1.0-cpu"},
    }
    return Wanted(**{**fields, **more})


def found(needed: Wanted | None = None, **there: Any) -> dict[str, str]:
    """Every line, by its subject."""
    return {one.subject: str(one) for one in findings(cluster(**there), needed or wanted(), VERSIONS)}


def test_a_cluster_that_has_everything_is_well() -> None:
    assert all(line.startswith("ok ") for line in found().values())


def test_every_line_has_its_subject_and_no_more_than_one() -> None:
    lines = list(findings(cluster(), wanted(), VERSIONS))
    assert len({one.subject for one in lines}) == len(lines)
    assert all("\n" not in str(one) for one in lines)


@pytest.mark.parametrize("version", ["1.28.9", "1.9.0-gke.100"])
def test_an_old_kubernetes_is_to_be_upgraded(version: str) -> None:
    assert found(kubernetes=version)["Kubernetes"] == (
        f"fix  Kubernetes           {version} is older than 1.29.0; upgrade it"
    )
    assert found(kubernetes="1.29.0")["Kubernetes"].endswith("ok   Kubernetes           1.29.0; tested with 1.34.4")


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("quay.io/kuberay/operator:v1.6.2", "ok   KubeRay              1.6.2; tested with 1.6.2"),
        ("registry.example.com:5000/operator:v1.7.0@sha256:0", "ok   KubeRay              1.7.0; tested with 1.6.2"),
        (
            "quay.io/kuberay/operator:v1.5.1",
            "fix  KubeRay              1.5.1 is older than 1.6.2; upgrade kuberay-operator and its CRDs",
        ),
        (
            "quay.io/kuberay/operator:nightly",
            "ok   KubeRay              quay.io/kuberay/operator:nightly, of unknown version; 1.6.2 or later is needed",
        ),
    ],
)
def test_the_operators_version_is_its_images(image: str, told: str) -> None:
    assert found(images={"kuberay-operator": image})["KubeRay"] == told


def test_without_an_operator_there_is_one_to_install() -> None:
    told = "no Deployment kuberay-operator; install the chart kuberay-operator 1.6.2"
    assert found(images={})["KubeRay"] == f"fix  KubeRay              {told}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_the_release_has_must_be_known(kind: str) -> None:
    definition, remedy = KINDS[kind]
    needed = wanted(kinds={kind: "group/v1"})
    missing = {name: served for name, served in DEFINITIONS.items() if name != definition}
    assert found(needed, definitions=missing)[kind] == f"fix  {kind:20} not there; {remedy}"
    assert found(wanted(kinds={}), definitions=missing)[kind] == f"ok   {kind:20} not there, and not needed"
    assert found(needed, definitions={definition: ["v1"]})[kind] == f"ok   {kind:20} served in v1"


def test_in_the_version_it_has() -> None:
    assert found(definitions={"rayservices.ray.io": ["v1alpha1"]})["RayService"] == (
        "fix  RayService           served in v1alpha1, needed in v1; upgrade its CRDs"
    )


def test_an_hpa_needs_somebody_who_offers_the_metrics() -> None:
    needed = wanted(kinds={"HorizontalPodAutoscaler": "autoscaling/v2"})
    assert found(needed)["pods' metrics"].startswith("fix  pods' metrics        nobody offers custom.metrics.k8s.io")
    assert found(needed, api_groups={"custom.metrics.k8s.io"})["pods' metrics"].endswith(" offered")
    assert found()["pods' metrics"].endswith("not offered, and not needed")


def test_a_claim_without_a_class_needs_a_default() -> None:
    needed = wanted(claims=[Claim("", 1)])
    assert found(needed)["default StorageClass"].endswith(" gp3")
    assert found(needed, storage_classes={"efs": False})["default StorageClass"] == (
        "fix  default StorageClass none; mark one as default, or set storage.className of redis and milvus"
    )
    assert found(storage_classes={})["default StorageClass"].startswith("ok ")


def test_a_class_that_is_named_has_to_be_there() -> None:
    assert found(wanted(claims=[Claim("efs", 1)]))["StorageClass"].startswith("ok ")
    assert found(wanted(claims=[Claim("io2", 1)]))["StorageClass"] == (
        "fix  StorageClass         no io2; there are: efs, gp3"
    )


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ({"kubernetes": "1.35.1"}, "ok   image volumes        Kubernetes 1.35.1 mounts them"),
        ({"image_volumes": True}, "ok   image volumes        Kubernetes 1.34.4-eks-113cf36 mounts them"),
        (
            {"image_volumes": None},
            "fix  image volumes        the feature gate ImageVolume is off; turn it on, for the kube",
        ),
        (
            {"image_volumes": False, "kubernetes": "1.35.1"},
            "fix  image volumes        the feature gate ImageVolume is off",
        ),
        (
            {"kubernetes": "1.32.4"},
            "fix  image volumes        Kubernetes 1.32.4 has none; upgrade it to 1.35, or put the",
        ),
        (
            {
                "kubernetes": "1.35.1",
                "nodes": [Node({}, {}, "containerd://1.7.27-1"), Node({}, {}, "containerd://2.2.0")],
            },
            "fix  image volumes        containerd://1.7.27-1 on a node mounts none; containerd 2.1 does: upgrade the",
        ),
    ],
)
def test_who_mounts_images_is_new_enough_and_told_to(there: dict[str, Any], told: str) -> None:
    assert found(wanted(image_volumes=True), **there)["image volumes"].startswith(told)
    assert found(**there)["image volumes"] == "ok   image volumes        not needed"


def test_the_driver_has_to_know_the_images_cuda() -> None:
    def driver(*majors: str) -> str:
        return found(nodes=[Node({"nvidia.com/cuda.driver-version.major": major}, {}) for major in majors])[
            "NVIDIA driver"
        ]

    assert driver("580", "590") == "ok   NVIDIA driver        580 or later; the image needs 580"
    assert driver("590", "550") == (
        "fix  NVIDIA driver        550 on a node; CUDA 13 in the image needs 580: upgrade it"
    )
    assert driver() == "ok   NVIDIA driver        no node says; the image needs 580 or later"


@pytest.mark.parametrize(
    ("needed", "line"),
    [
        ({}, "ok   Ray and vLLM         Ray 2.60.0 and vLLM 0.29.0, tested together"),
        (
            {"ray": "2.55.0"},
            "fix  Ray and vLLM         rayVersion is 2.55.0, and the images have Ray 2.60.0 and vLLM 0.29.0; leave "
            "rayVersion out",
        ),
        (
            {"tags": {"0.1.0", "nightly"}},
            "fix  Ray and vLLM         tags 0.1.0, nightly; give all images of a RayCluster one version",
        ),
        (
            {"ray": "2.61.0", "tags": {"ours", "ours-cpu"}},
            "ok   Ray and vLLM         your images ours must have Ray 2.61.0; tested: Ray 2.60.0 and vLLM 0.29.0",
        ),
    ],
)
def test_ray_and_vllm_are_those_of_the_images(needed: dict[str, Any], line: str) -> None:
    assert found(wanted(**needed))["Ray and vLLM"] == line
