"""The pods of a release as a cluster would have them: the rendered templates, and what KubeRay adds to Ray's."""

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.chart.render import of_kind, ray_cluster

Pod = dict[str, Any]


def pods(objects: Sequence[dict[str, Any]]) -> dict[str, Pod]:
    """One pod of each kind, by what it is: ``head``, a worker group's name, ``redis-cleanup``, or its owner's name."""
    cluster = ray_cluster(objects)
    (service,) = of_kind(objects, "RayService")
    cluster_name = f"{service}-abcde"
    found = {"head": _head(cluster, cluster_name)}
    for group in cluster["workerGroupSpecs"]:
        found[group["groupName"]] = _worker(group, cluster_name)
    if "gcsFaultToleranceOptions" in cluster:
        found["redis-cleanup"] = _redis_cleanup(found["head"])
    for kind in ("DaemonSet", "Deployment", "StatefulSet"):
        for owner, one in of_kind(objects, kind).items():
            found[owner] = _pod(owner, one["spec"]["template"])
            for claim in one["spec"].get("volumeClaimTemplates", ()):
                name = claim["metadata"]["name"]
                volume = {"name": name, "persistentVolumeClaim": {"claimName": f"{name}-{owner}-0"}}
                found[owner]["spec"]["volumes"].append(volume)
    for owner, one in of_kind(objects, "RayJob").items():
        job = one["spec"]["rayClusterSpec"]
        found[f"{owner}-head"] = _ray_pod(job["headGroupSpec"]["template"], owner, "head", "headgroup")
        for group in job["workerGroupSpecs"]:
            found[f"{owner}-{group['groupName']}"] = _worker(group, owner)
    for owner, one in of_kind(objects, "Job").items():
        found[owner] = _pod(owner, one["spec"]["template"])
    for owner, one in of_kind(objects, "CronJob").items():
        found[owner] = _pod(owner, one["spec"]["jobTemplate"]["spec"]["template"])
    return found | of_kind(objects, "Pod")


def claims_asked_twice(objects: Sequence[dict[str, Any]]) -> list[str]:
    """Each claim that a pod has several volumes of, as ``pod/claim``: the kubelet waits for ever for the second."""
    return [
        f"{name}/{claim}"
        for name, pod in pods(objects).items()
        for claim, volumes in Counter(
            volume["persistentVolumeClaim"]["claimName"]
            for volume in pod["spec"].get("volumes", ())
            if "persistentVolumeClaim" in volume
        ).items()
        if volumes > 1
    ]


def _pod(name: str, template: dict[str, Any]) -> Pod:
    template = copy.deepcopy(template)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template.get("metadata", {}), "name": name},
        "spec": template["spec"],
    }


def _ray_pod(template: dict[str, Any], cluster: str, node_type: str, group: str) -> Pod:
    """A Ray pod with KubeRay's labels, which no template may take."""
    pod = _pod(f"{cluster}-{group}", template)
    pod["metadata"]["labels"] = {
        **pod["metadata"]["labels"],
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": "kuberay-operator",
        "ray.io/cluster": cluster,
        "ray.io/group": group,
        "ray.io/identifier": f"{cluster}-{node_type}",
        "ray.io/is-ray-node": "yes",
        "ray.io/node-type": node_type,
    }
    return pod


def _head(cluster: dict[str, Any], name: str) -> Pod:
    """The head with the autoscaler that KubeRay puts beside it."""
    pod = _ray_pod(cluster["headGroupSpec"]["template"], name, "head", "headgroup")
    options = cluster["autoscalerOptions"]
    pod["spec"]["containers"].append(
        {
            "name": "autoscaler",
            "image": pod["spec"]["containers"][0]["image"],
            "securityContext": options["securityContext"],
            "volumeMounts": options["volumeMounts"],
        }
    )
    return pod


def _worker(group: dict[str, Any], name: str) -> Pod:
    """A worker with the init container by which KubeRay has it wait for the head."""
    pod = _ray_pod(group["template"], name, "worker", group["groupName"])
    ray = pod["spec"]["containers"][0]
    copied = {key: ray[key] for key in ("image", "env", "volumeMounts", "securityContext")}
    pod["spec"]["initContainers"] = [{"name": "wait-gcs-ready", **copied}]
    return pod


def _redis_cleanup(head: Pod) -> Pod:
    """KubeRay's job that empties Redis: the head's pod with one container, another label and nothing to probe."""
    pod = copy.deepcopy(head)
    pod["metadata"]["name"] += "-redis-cleanup"
    pod["metadata"]["labels"]["ray.io/node-type"] = "redis-cleanup"
    (ray, _) = pod["spec"]["containers"]
    pod["spec"]["containers"] = [{key: value for key, value in ray.items() if not key.endswith("inessProbe")}]
    return pod
