"""The chart, rendered by Helm; every object is checked against its schema, so no test can forget to."""

import functools
import json
import os
import pickle
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.chart.kubernetes import validate_objects
from tests.chart.resident import Resident
from tools import gotools

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "charts" / "llm-serving"
VALUES = REPOSITORY / "values"

#: The least a model needs; tests add to it.
CHAT: dict[str, Any] = {"source": "hf://org/chat@main", "accelerator": {"type": "L4"}}
EMBEDDER: dict[str, Any] = {"task": "embed", "source": "hf://org/embedder@main", "accelerator": {"type": "L4"}}
RERANKER: dict[str, Any] = {"task": "score", "source": "hf://org/reranker@main", "accelerator": {"type": "L4"}}
DOCS: dict[str, Any] = {"llm": "chat", "embedder": "embedder", "vectorStore": {"uri": "http://milvus:19530"}}


class RenderRefused(ValueError):
    """Helm refused the values; the message is what the chart or its schema said."""


def helm(*arguments: str, values: Mapping[str, Any] | None = None, files: Sequence[Path] = ()) -> str:
    """What helm prints for the chart with ``files`` and, over them, ``values``.

    Raises:
        RenderRefused: Helm failed.
    """
    command = [str(gotools.helm()), *arguments, *(f"--values={file}" for file in files), "--values=-"]
    # Helm lives for less than a second: a fifth of it would be spent on freeing memory.
    environment = {**os.environ, "GOGC": "off"}
    done = subprocess.run(
        command, input=yaml.safe_dump(values or {}), env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RenderRefused(_message(done.stderr))
    return done.stdout


def _message(stderr: str) -> str:
    """Helm's words without where it says them."""
    lines = [line for line in stderr.splitlines() if line and not line.startswith(("Use --debug", "level="))]
    if lines and lines[0].startswith("Error: execution error at"):
        lines = lines[1:]
    return "\n".join(lines)


def render_chart(
    values: Mapping[str, Any] | None = None,
    *,
    files: Sequence[Path] = (),
    settings: Sequence[str] = (),
    release: str = "llm-serving",
    namespace: str = "ray-system",
    kubernetes: str = "",
) -> list[dict[str, Any]]:
    """The objects of a release. The same arguments give the same objects, random Secrets included.

    ``values`` are laid over the ``files``, and the ``settings``, as of ``--set``, over both. ``kubernetes`` is the
    version that the chart is told; Helm's own unless given.

    Raises:
        RenderRefused: The chart or its schema refuses the values.
        AssertionError: An object does not fit its Kubernetes schema.
    """
    asked = json.dumps(values or {}), tuple(files), tuple(settings), release, namespace, kubernetes
    objects: list[dict[str, Any]] = pickle.loads(_rendered(*asked))
    return objects


@functools.cache
def _rendered(
    values: str, files: tuple[Path, ...], settings: tuple[str, ...], release: str, namespace: str, kubernetes: str
) -> bytes:
    """The objects that helm prints, once they have been found valid; pickled, since YAML is read slowly."""
    objects = _objects(_printed(json.loads(values), files, settings, release, namespace, kubernetes)["manifest"])
    validate_objects(objects)
    return pickle.dumps(objects)


def _printed(
    values: Mapping[str, Any] | None,
    files: Sequence[Path],
    settings: Sequence[str] = (),
    release: str = "llm-serving",
    namespace: str = "default",
    kubernetes: str = "",
) -> dict[str, str]:
    """The ``manifest`` that ``helm template`` prints, and the ``notes`` of ``helm install``, by a Helm that stays.

    Raises:
        RenderRefused: Helm refused the values.
    """
    asked = {
        "chart": str(CHART),
        "release": release,
        "namespace": namespace,
        "kubernetes": kubernetes,
        "files": [str(file) for file in files],
        "settings": list(settings),
        "stdin": yaml.dump(values or {}, Dumper=yaml.CSafeDumper),
    }
    answer: dict[str, str] = json.loads(_resident_helm().ask(f"{json.dumps(asked)}\n"))
    if answer["error"]:
        raise RenderRefused(_message(answer["error"]))
    return answer


@functools.cache
def _resident_helm() -> Resident:
    return Resident([gotools.binary("helm-render")])


def _objects(printed: str) -> list[dict[str, Any]]:
    return [document for document in yaml.load_all(printed, Loader=yaml.CSafeLoader) if document]


def notes(
    values: Mapping[str, Any] | None = None, *, files: Sequence[Path] = (), kubeconfig: Path | None = None
) -> str:
    """What an install prints when it is done; on the cluster of ``kubeconfig``, or on one that Helm imagines."""
    if kubeconfig is None:
        return _printed(values, files)["notes"].strip() + "\n"
    dry_run = ("--dry-run=server", f"--kubeconfig={kubeconfig}")
    return helm("install", "llm-serving", str(CHART), *dry_run, values=values, files=files).partition("\nNOTES:\n")[2]


def of_kind(objects: Sequence[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind, by name."""
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


def the(objects: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The only object of a kind."""
    (one,) = of_kind(objects, kind).values()
    return one


def serve_config(objects: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The Serve config of the RayService, parsed."""
    text = the(objects, "RayService")["spec"]["serveConfigV2"]
    config: dict[str, Any] = yaml.load(text, Loader=yaml.CSafeLoader)
    return config


def application(objects: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """The Serve application ``name``."""
    (one,) = (found for found in serve_config(objects)["applications"] if found["name"] == name)
    found: dict[str, Any] = one
    return found


def ray_cluster(objects: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The RayService's rayClusterConfig."""
    cluster: dict[str, Any] = the(objects, "RayService")["spec"]["rayClusterConfig"]
    return cluster


def worker_group(objects: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """The worker group ``name``."""
    (one,) = (group for group in ray_cluster(objects)["workerGroupSpecs"] if group["groupName"] == name)
    found: dict[str, Any] = one
    return found


def ray_container(group: Mapping[str, Any]) -> dict[str, Any]:
    """The Ray container of the head or a worker group."""
    container: dict[str, Any] = group["template"]["spec"]["containers"][0]
    return container


def environment(group: Mapping[str, Any]) -> dict[str, Any]:
    """The Ray container's environment; a variable that comes from elsewhere has its ``valueFrom``."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in ray_container(group)["env"]}
