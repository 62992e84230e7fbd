"""What must be there before a release: fresh namespaces, each with the claim of the weights and one for documents."""

import json
import subprocess
from typing import Any

from tests.e2e.waiting import until
from tools.cluster import volumes
from tools.cluster.target import Target
from tools.demo.models import CLAIM, models_root

NAMESPACE = "llm-serving-e2e"
#: For a release that starts while another one goes.
SECOND_NAMESPACE = "llm-serving-e2e-second"
NAMESPACES = (NAMESPACE, SECOND_NAMESPACE)
#: The claim of tests/e2e/values.yaml for the pipelines' documents.
DATA_CLAIM = "pipelines-data"
#: Images that the releases name (tools/images).
IMAGES = ("ray-serve", "ray-vllm-cpu", "redis", "milvus")
#: A namespace with running RayServices takes this long at most to go, in seconds.
GONE_TIMEOUT_S = 600


class NotPrepared(RuntimeError):
    """The cluster lacks something that only its owner can give; the message says what."""


def prepare(target: Target, *, keep: bool) -> None:
    """Make the cluster ready for an install; with ``keep``, what is there stays.

    Raises:
        NotPrepared: The weights are not there and cannot be put there from here.
    """
    target.load(*IMAGES)
    there = existing(target)
    if keep and there == [*NAMESPACES]:
        return
    remove(target)
    for namespace in NAMESPACES:
        if target.kind != "ours" and not _exists(target, "persistentvolume", volume(namespace)):
            raise NotPrepared(
                f"this cluster has no PersistentVolume {volume(namespace)}: make one with the content of "
                f"{models_root() / CLAIM}, reserved (claimRef) for the claim {CLAIM} in the namespace {namespace}"
            )
        target.kubectl("apply", "-f", "-", input=json.dumps(_namespace(namespace)))
        weights = [_weights_volume(namespace)] if target.kind == "ours" else []
        objects = {"apiVersion": "v1", "kind": "List", "items": [*weights, _weights_claim(namespace), _data_claim()]}
        target.kubectl("apply", "-f", "-", input=json.dumps(objects), namespace=namespace)


def existing(target: Target) -> list[str]:
    """Those of the namespaces that are there."""
    return [namespace for namespace in NAMESPACES if _exists(target, "namespace", namespace)]


def remove(target: Target) -> None:
    """Take away what an earlier run left: its releases first, so that KubeRay can clean up after them."""
    there = existing(target)
    for namespace in there:
        for release in _helm(target, ["helm", "list", "--short", f"--namespace={namespace}"]).split():
            waited = ("--wait", f"--timeout={GONE_TIMEOUT_S}s")
            _helm(target, ["helm", "uninstall", release, f"--namespace={namespace}", *waited])
    if there:
        target.kubectl("delete", "namespace", *there, "--wait=false")
        until("the namespaces are gone", lambda: existing(target), lambda left: not left, GONE_TIMEOUT_S)
    if target.kind == "ours":
        target.kubectl("delete", "persistentvolume", *map(volume, NAMESPACES), "--ignore-not-found")
        volumes.reopen()


def volume(namespace: str) -> str:
    """The PersistentVolume with the weights for a namespace: one binds to one claim."""
    return f"{namespace}-{CLAIM}"


def _helm(target: Target, command: list[str]) -> str:
    done = subprocess.run(
        command, env=target.environment(), capture_output=True, text=True, check=False, timeout=GONE_TIMEOUT_S + 60
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def _exists(target: Target, kind: str, name: str) -> bool:
    return bool(target.kubectl("get", kind, name, "--ignore-not-found", "--output=name"))


def _namespace(name: str) -> dict[str, Any]:
    """A namespace; it admits only pods of Kubernetes' restricted standard, whoever makes them."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _weights_volume(namespace: str) -> dict[str, Any]:
    """The demo's models, where tools.demo.models has prepared them on this machine."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume(namespace)},
        "spec": {
            "capacity": {"storage": "5Gi"},
            "accessModes": ["ReadOnlyMany", "ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"name": CLAIM, "namespace": namespace},
            "hostPath": {"path": str(models_root() / CLAIM), "type": "Directory"},
        },
    }


def _weights_claim(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeName": volume(namespace),
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def _data_claim() -> dict[str, Any]:
    """From the cluster's default StorageClass."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": DATA_CLAIM},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
