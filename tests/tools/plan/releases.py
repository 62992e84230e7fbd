"""Models and pods for the plan's tests, which change one thing of them."""

from typing import Any

from serve_apps.llm.config import Accelerator, Parallelism
from tools.plan.release import Model, Pods, Release


def pods(**more: Any) -> Pods:
    """Two to four pods with an L40S each."""
    fields: dict[str, Any] = {"name": "models.chat", "least": 2, "most": 4, "cpu": 3, "memory_gi": 24}
    return Pods(**{**fields, "gpu": "L40S", "gpus": 1, "node_gpus": 1, **more})


def cpu_pods(**more: Any) -> Pods:
    """A pod without a GPU."""
    return pods(**{"name": "head", "least": 1, "most": 1, "gpu": "", "gpus": 0, "node_gpus": 0, **more})


def model(**more: Any) -> Model:
    """An 8B model on an L40S."""
    fields: dict[str, Any] = {"name": "chat", "pods": "models.chat", "source": "hf://org/Chat-8B@main", "engine": {}}
    accelerator = Accelerator(type="L40S", count=1)
    fields |= {"accelerator": accelerator, "nodes": 1, "parallelism": Parallelism()}
    return Model(**{**fields, "holds_gb": 48, "weights_gb": 16, "starts_for_a_request": False, **more})


def release(*models: Model, of: list[Pods] | None = None) -> Release:
    """A release of ``models`` and their pods."""
    return Release(of or [pods()], list(models), 900)
