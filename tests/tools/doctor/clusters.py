"""A cluster that is well, for tests that take one thing of it away; and what kubectl prints of it."""

import json
from typing import Any

from tools.doctor.cluster import Allowance, Bounds, Cluster, Node
from tools.doctor.quantity import GI

GPU_NODE = {"karpenter.k8s.aws/instance-gpu-name": "l4", "nvidia.com/cuda.driver-version.major": "580"}
#: What is left of a g6.xlarge.
GPU_ROOM = {"cpu": 3.92, "memory": 14 * GI, "nvidia.com/gpu": 1}
DEFINITIONS = {
    "rayservices.ray.io": ["v1"],
    "nodepools.karpenter.sh": ["v1"],
    "ec2nodeclasses.karpenter.k8s.aws": ["v1"],
    "podmonitors.monitoring.coreos.com": ["v1"],
    "servicemonitors.monitoring.coreos.com": ["v1"],
    "prometheusrules.monitoring.coreos.com": ["v1"],
    "httproutes.gateway.networking.k8s.io": ["v1", "v1beta1"],
}


def cluster(**more: Any) -> Cluster:
    """A cluster on EKS with a node of one L4."""
    fields: dict[str, Any] = {
        "kubernetes": "1.34.4-eks-113cf36",
        "definitions": DEFINITIONS,
        "images": {"kuberay-operator": "quay.io/kuberay/operator:v1.6.2", "coredns": "coredns:1"},
        "storage_classes": {"gp3": True, "efs": False},
        "nodes": [Node({}, {"cpu": 4}), Node(GPU_NODE, GPU_ROOM, "containerd://2.1.4")],
        "node_pools": {"gpus": Allowance("gpus", {"nvidia.com/gpu": 100}, {"nvidia.com/gpu": 1})},
        "quotas": [Allowance("team", {"requests.nvidia.com/gpu": 1, "pods": 50}, {"pods": 2})],
        "bounds": [Bounds("sizes", "Container", {"memory": 512 * GI}, {"memory": 512 * GI, "cpu": 64})],
        "api_groups": {"apps", "metrics.k8s.io"},
    }
    return Cluster(**{**fields, **more})


def kubectl(*arguments: str) -> str:
    """What kubectl of 1.34 prints for the doctor's questions on that cluster."""
    answers = {
        ("version",): json.dumps(
            {"clientVersion": {"gitVersion": "v1.34.1"}, "serverVersion": {"gitVersion": "v1.34.4-eks-113cf36"}}
        ),
        ("get", "crds"): "".join(f"{name} {' '.join(served)}\n" for name, served in DEFINITIONS.items()),
        ("get", "deployments"): "kuberay-operator quay.io/kuberay/operator:v1.6.2\ncoredns coredns:1\n",
        ("get", "nodepools.karpenter.sh"): json.dumps(
            {
                "items": [
                    {
                        "metadata": {"name": "gpus"},
                        "spec": {"limits": {"nvidia.com/gpu": 100}},
                        "status": {"resources": {"nvidia.com/gpu": "1"}},
                    }
                ]
            }
        ),
        ("get", "resourcequotas"): json.dumps(
            {
                "items": [
                    {
                        "metadata": {"name": "team"},
                        "spec": {"hard": {"requests.nvidia.com/gpu": "1", "pods": "50"}},
                        "status": {"used": {"pods": "2"}},
                    },
                    {"metadata": {"name": "short"}, "spec": {"hard": {"pods": "1"}, "scopes": ["Terminating"]}},
                ]
            }
        ),
        ("get", "limitranges"): json.dumps(
            {
                "items": [
                    {
                        "metadata": {"name": "sizes"},
                        "spec": {
                            "limits": [
                                {"type": "Container", "max": {"memory": "512Gi"}, "default": {"cpu": "64"}},
                                {"type": "PersistentVolumeClaim", "max": {"storage": "1Ti"}},
                            ]
                        },
                    }
                ]
            }
        ),
        ("get", "storageclasses"): json.dumps(
            {
                "items": [
                    {
                        "metadata": {
                            "name": "gp3",
                            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                        }
                    },
                    {"metadata": {"name": "efs"}},
                ]
            }
        ),
        ("get", "nodes"): json.dumps(
            {
                "items": [
                    {"metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "4"}}},
                    {
                        "metadata": {"name": "b", "labels": GPU_NODE},
                        "status": {
                            "allocatable": {"cpu": "3920m", "memory": "14Gi", "nvidia.com/gpu": "1"},
                            "nodeInfo": {"containerRuntimeVersion": "containerd://2.1.4"},
                        },
                    },
                ]
            }
        ),
        ("get", "--raw=/metrics"): (
            "# TYPE kubernetes_feature_enabled gauge\n"
            'kubernetes_feature_enabled{name="ImageMaximumGCAge",stage="BETA"} 1\n'
            'kubernetes_feature_enabled{name="ImageVolume",stage="BETA"} 0\n'
        ),
        ("get", "apiservices"): (
            "apiservice.apiregistration.k8s.io/v1.apps\napiservice.apiregistration.k8s.io/v1beta1.metrics.k8s.io\n"
        ),
    }
    (found,) = (answer for words, answer in answers.items() if arguments[: len(words)] == words)
    return found
