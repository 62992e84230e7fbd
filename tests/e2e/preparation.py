"""What must be there before a release: a fresh namespace, the claim with the weights, and one for documents."""

import json
import subprocess
from typing import Any

from tests.e2e.waiting import until
from tools.cluster import volumes
from tools.cluster.target import Target
from tools.demo.models import CLAIM, models_root

NAMESPACE = "llm-serving-e2e"
#: The claim of tests/e2e/values.yaml for the pipelines' documents.
DATA_CLAIM = "pipelines-data"
#: Images that the releases name (tools/images).
IMAGES = ("ray-serve", "ray-vllm-cpu", "redis")
#: A namespace with running RayServices takes this long at most to go, in seconds.
GONE_TIMEOUT_S = 240


class NotPrepared(RuntimeError):
    """The cluster lacks something that only its owner can give; the message says what."""


def prepare(target: Target, *, keep: bool) -> None:
    """Make the cluster ready for an install; with ``keep``, what is there stays.

    Raises:
        NotPrepared: The weights are not there and cannot be put there from here.
    """
    target.load(*IMAGES)
    if keep and exists(target):
        return
    remove(target)
    target.kubectl("apply", "-f", "-", input=json.dumps(_namespace()))
    if target.kind == "ours":
        _apply(target, _weights_volume(), _weights_claim())
    elif not _other_volume(target):
        raise NotPrepared(
            f"this cluster has no PersistentVolume {CLAIM}: make one with the content of "
            f"{models_root() / CLAIM}, reserved (claimRef) for the claim {CLAIM} in the namespace {NAMESPACE}"
        )
    else:
        _apply(target, _weights_claim())
    _apply(target, _data_claim())


def exists(target: Target) -> bool:
    """Whether the namespace is there."""
    return bool(target.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "--output=name"))


def remove(target: Target) -> None:
    """Take away what an earlier run left: its releases first, so that KubeRay can clean up after them."""
    if exists(target):
        listed = ["helm", "list", "--short", f"--namespace={NAMESPACE}"]
        for release in _helm(target, listed).split():
            _helm(target, ["helm", "uninstall", release, f"--namespace={NAMESPACE}", "--wait", "--timeout=180s"])
        target.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
        until(f"the namespace {NAMESPACE} is gone", lambda: exists(target), lambda there: not there, GONE_TIMEOUT_S)
    if target.kind == "ours":
        target.kubectl("delete", "persistentvolume", CLAIM, "--ignore-not-found")
        volumes.reopen()


def _helm(target: Target, command: list[str]) -> str:
    done = subprocess.run(
        command, env=target.environment(), capture_output=True, text=True, check=False, timeout=GONE_TIMEOUT_S
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def _apply(target: Target, *objects: dict[str, Any]) -> None:
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    target.kubectl("apply", "-f", "-", input=listed, namespace=NAMESPACE)


def _other_volume(target: Target) -> bool:
    return bool(target.kubectl("get", "persistentvolume", CLAIM, "--ignore-not-found", "--output=name"))


def _namespace() -> dict[str, Any]:
    """The namespace; it admits only pods of Kubernetes' restricted standard, whoever makes them."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def _weights_volume() -> dict[str, Any]:
    """The demo's models, where tools.demo.models has prepared them on this machine."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": CLAIM},
        "spec": {
            "capacity": {"storage": "5Gi"},
            "accessModes": ["ReadOnlyMany", "ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"name": CLAIM, "namespace": NAMESPACE},
            "hostPath": {"path": str(models_root() / CLAIM), "type": "Directory"},
        },
    }


def _weights_claim() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeName": CLAIM,
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
