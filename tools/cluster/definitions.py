"""The objects that every cluster begins with."""

import json
from collections.abc import Iterable
from typing import Any

from tools.cluster import volumes
from tools.cluster.certificates import ca_bundle
from tools.cluster.control_plane import CONTROL, WEBHOOK_URL, check
from tools.cluster.kubectl import kubectl
from tools.cluster.machine import DNS_ADDRESS
from tools.cluster.progress import wait_until
from tools.crds import ESTABLISHED, crd_files, definition_name

#: For all custom resources; the API server takes seconds for some of them.
CRDS_TIMEOUT_S = 300.0


def learn_custom_resources() -> None:
    """Apply the definitions of `tools.crds` that are not there yet."""
    files = {definition_name(file): file for file in crd_files()}
    if missing := sorted(files.keys() - _established()):
        filenames = [f"--filename={files[name]}" for name in missing]
        kubectl("apply", "--server-side", *filenames, timeout_s=CRDS_TIMEOUT_S)
    wait_until(lambda: files.keys() <= _established(), "custom resources", CRDS_TIMEOUT_S, check)


def apply(objects: Iterable[dict[str, Any]]) -> None:
    """Have the API server take in ``objects``."""
    kubectl("apply", "--server-side", "--filename=-", input="\n---\n".join(json.dumps(one) for one in objects))


def basics() -> list[dict[str, Any]]:
    """DNS and volumes."""
    return [*dns(), *volumes.objects()]


def dns() -> list[dict[str, Any]]:
    """The Service of CoreDNS, which is no pod: its endpoint is written by hand."""
    metadata = {"name": "kube-dns", "namespace": "kube-system"}
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"clusterIP": DNS_ADDRESS, "ports": ports},
    }
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [CONTROL.address]}],
        "ports": ports,
    }
    return [service, slice_]


def webhook() -> dict[str, Any]:
    """KubeRay's check of RayClusters. Its operator registers only this one of the three that its manifest lists."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "kuberay-validating-webhook-configuration"},
        "webhooks": [
            {
                "name": "vraycluster.kb.io",
                "clientConfig": {"url": WEBHOOK_URL, "caBundle": ca_bundle()},
                "admissionReviewVersions": ["v1"],
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "rules": [
                    {
                        "apiGroups": ["ray.io"],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["rayclusters"],
                    }
                ],
            }
        ],
    }


def _established() -> set[str]:
    """The names of the definitions that are in use."""
    return set(kubectl("get", "crd", f"--output=go-template={ESTABLISHED}").split())
