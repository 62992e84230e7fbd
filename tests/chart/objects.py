"""Small valid objects, for tests that break one thing of them."""

from typing import Any


def ray_service() -> dict[str, Any]:
    """A RayService with the fields its schema asks for."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "demo"},
        "spec": {
            "rayClusterConfig": {
                "headGroupSpec": {"rayStartParams": {}, "template": _pod("ray-head")},
                "workerGroupSpecs": [
                    {"groupName": "cpu", "minReplicas": 1, "maxReplicas": 2, "template": _pod("ray-worker")}
                ],
            },
        },
    }


def _pod(container: str) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": container, "image": "ray:1", "resources": {"limits": {"cpu": 1}}}]}}


def config_map() -> dict[str, Any]:
    """A ConfigMap with one key."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": "value"}}
