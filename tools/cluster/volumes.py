"""Volumes for whoever claims one: folders of this machine, made in advance and seen by both nodes."""

import json
import shutil
from pathlib import Path
from typing import Any

from tools.cluster.kubectl import kubectl
from tools.cluster.state import VOLUMES

COUNT = 24
SIZE = "5Gi"
STORAGE_CLASS = "local"


def names() -> list[str]:
    """The volumes' names, which are their folders' too."""
    return [f"volume-{number:02}" for number in range(1, COUNT + 1)]


def make_folders() -> None:
    """The folders, for any user to write to."""
    for name in names():
        _make(VOLUMES / name)


def objects() -> list[dict[str, Any]]:
    """The default StorageClass and the volumes."""
    return [storage_class(), *(volume(name) for name in names())]


def storage_class() -> dict[str, Any]:
    """The default class: it has the volumes that are there, and makes no more."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "reclaimPolicy": "Retain",
        "volumeBindingMode": "Immediate",
    }


def volume(name: str) -> dict[str, Any]:
    """One volume."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "storageClassName": STORAGE_CLASS,
            "capacity": {"storage": SIZE},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(VOLUMES / name), "type": "Directory"},
        },
    }


def reopen() -> list[str]:
    """Empty the volumes whose claim was deleted, and offer them again; their names."""
    listed = json.loads(kubectl("get", "persistentvolumes", "--output=json"))["items"]
    # One that was reopened a moment ago is still called Released.
    released = [
        one["metadata"]["name"]
        for one in listed
        if one["status"].get("phase") == "Released" and "claimRef" in one["spec"]
    ]
    reopened = [name for name in names() if name in released]
    for name in reopened:
        shutil.rmtree(VOLUMES / name)
        _make(VOLUMES / name)
        patch = '[{"op": "remove", "path": "/spec/claimRef"}]'
        kubectl("patch", "persistentvolume", name, "--type=json", f"--patch={patch}")
    return reopened


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)  # a pod runs as a user of its own
