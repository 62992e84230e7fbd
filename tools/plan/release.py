"""What a release consists of, as the chart itself counts it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_apps.llm.config import Accelerator, Parallelism
from tools.demo.rendered import helm_template

#: Has the chart say what it works with, in an object that nobody installs.
ASKED = """
extraObjects:
  - |
    kind: Plan
    pods: {{ include "llm-serving.requests" . | fromYaml | toJson }}
    onRay: {{ include "llm-serving.models" . | fromYaml | toJson }}
    standalone: {{ include "llm-serving.standalone" . | fromYaml | toJson }}
    accelerators: {{ include "llm-serving.accelerators" . | fromYaml | toJson }}
    weightsGb: {{ include "llm-serving.weightsGb" . | fromYaml | toJson }}
    firstByteTimeoutS: {{ .Values.gateway.firstByteTimeoutS }}
"""


@dataclass(frozen=True)
class Pods:
    """The pods of one kind, and what one of them asks for."""

    name: str
    least: int
    most: int
    cpu: float
    memory_gi: float
    gpu: str
    """Its GPUs' type; empty without."""
    gpus: int
    node_gpus: int
    """GPUs that the node it is sent to has."""


@dataclass(frozen=True)
class Model:
    """A model that the chart runs."""

    name: str
    pods: str
    """The pods it runs in, by the name of these."""
    source: str
    accelerator: Accelerator
    engine: dict[str, Any]
    holds_gb: float
    """What the accelerators of one replica hold together."""
    weights_gb: float | None
    """Of its weights, where the chart knows."""
    starts_for_a_request: bool
    """Whether it may have no replica, so that a request waits for its start."""
    nodes: int
    """Nodes of one replica, each with such an accelerator."""
    parallelism: Parallelism
    """How it is split further."""

    @property
    def devices(self) -> int:
        """Accelerators of one replica."""
        return self.accelerator.count * self.nodes * self.parallelism.data

    @property
    def copies(self) -> int:
        """How often a replica holds the weights; those of experts count for the whole of a mixture of experts."""
        return 1 if self.parallelism.experts else self.parallelism.data


@dataclass(frozen=True)
class Release:
    """What would be installed."""

    pods: list[Pods]
    models: list[Model]
    first_byte_timeout_s: float


def render(helm: Path, files: Iterable[Path], scratch: Path) -> list[dict[str, Any]]:
    """The objects of the release that ``files`` describe, and the one of `ASKED`; written with a file in ``scratch``.

    Raises:
        ValueError: Helm refused them; the message is Helm's own.
    """
    asked = scratch / "plan.yaml"
    asked.write_text(ASKED)
    return helm_template(helm, [*files, asked])


def read(objects: Sequence[dict[str, Any]]) -> Release:
    """The release of rendered objects, `ASKED`'s among them."""
    (plan,) = (one for one in objects if one["kind"] == "Plan")
    pods = [
        Pods(name, one["least"], one["most"], one["cpu"], one["memoryGi"], one["type"], one["gpu"], one["nodeGpus"])
        for name, one in plan["pods"].items()
    ]
    models = [
        Model(
            name,
            f"models.{name}" if name in plan["standalone"] else f"workerGroups.{one['group']}",
            one["source"],
            Accelerator.model_validate(one["accelerator"]),
            {**one["engine"], **one["engine"].get("extra", {})},
            _each_gb(plan["accelerators"], one["accelerator"]["type"]) * one["devices"],
            plan["weightsGb"].get(name),
            one["autoscalingConfig"]["min_replicas"] == 0,
            one["nodes"],
            Parallelism.model_validate(one["parallelism"]),
        )
        for name, one in sorted({**plan["onRay"], **plan["standalone"]}.items())
    ]
    return Release(pods, models, plan["firstByteTimeoutS"])


def _each_gb(accelerators: dict[str, Any], accelerator: str) -> float:
    """A GPU's own memory; a core's share of its node's."""
    share = accelerators[accelerator]
    return float(share.get("gpuGb", share["memoryGi"]))
