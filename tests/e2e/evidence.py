"""What is kept of a cluster when a step fails: logs, events, custom resources, Serve's own view."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.preparation import existing
from tests.e2e.release import SERVE_API
from tools.cluster.state import LOGS
from tools.cluster.target import Target
from tools.demo.rendered import REPOSITORY

FOLDER = REPOSITORY / "build" / "e2e"
#: Of each log, its last lines.
LINES = 3000
#: Custom resources whose whole YAML is kept.
CUSTOM_RESOURCES = "rayservices,rayclusters"


def keep(target: Target, step: str) -> Path:
    """Write what there is into a folder of its own under build/e2e; that folder.

    What cannot be read is said in its file: a failed step must not fail once more over its evidence.
    """
    folder = FOLDER / step
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "nodes.txt", lambda: target.kubectl("describe", "nodes", timeout_s=60))
    _write(folder / "operator.log", lambda: operator_log(target))
    for namespace in existing(target):
        _keep(target, namespace, folder / namespace)
    return folder


def _keep(target: Target, namespace: str, folder: Path) -> None:
    """Write what there is of one namespace."""
    folder.mkdir(exist_ok=True)

    def write(name: str, read: Callable[[], str]) -> None:
        _write(folder / name, read)

    def kubectl(*arguments: str) -> Callable[[], str]:
        return lambda: target.kubectl(*arguments, namespace=namespace, timeout_s=60)

    write("pods.txt", kubectl("get", "pods,services,jobs,persistentvolumeclaims", "-o=wide"))
    write("pods.yaml", kubectl("get", "pods", "-o=yaml"))
    write("events.txt", kubectl("get", "events", "--sort-by=.lastTimestamp"))
    write("custom-resources.yaml", kubectl("get", CUSTOM_RESOURCES, "-o=yaml"))
    for pod, container in _containers(target, namespace):
        tail = f"--tail={LINES}"
        write(f"{pod}.{container}.log", kubectl("logs", pod, f"--container={container}", tail))
        write(f"{pod}.{container}.previous.log", kubectl("logs", pod, f"--container={container}", tail, "--previous"))
    for previous in folder.glob("*.previous.log"):
        if previous.read_text().startswith("could not be read"):  # it has not run before
            previous.unlink()
    # By cluster: the RayService has a Service to its head only once all applications have run.
    for ray_cluster in _names(target, namespace, "rayclusters"):
        write(f"{ray_cluster}.serve.json", kubectl("exec", f"service/{ray_cluster}-head-svc", *SERVE_API))


def _write(file: Path, read: Callable[[], str]) -> None:
    try:
        file.write_text(read())
    except Exception as error:  # noqa: BLE001  # whatever it is, it is written down
        file.write_text(f"could not be read: {error}\n")


def operator_log(target: Target) -> str:
    """The end of the KubeRay operator's log, wherever it runs."""
    if target.kind == "ours":
        text = (LOGS / "control-kuberay-operator.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-LINES:])
    selector = "--selector=app.kubernetes.io/name=kuberay-operator"
    return target.kubectl("logs", selector, "--all-namespaces", f"--tail={LINES}", check=False)


def _containers(target: Target, namespace: str) -> list[tuple[str, str]]:
    pods: list[dict[str, Any]] = json.loads(target.kubectl("get", "pods", "-o=json", namespace=namespace))["items"]
    return [
        (pod["metadata"]["name"], container["name"])
        for pod in pods
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    ]


def _names(target: Target, namespace: str, kind: str) -> list[str]:
    printed = target.kubectl("get", kind, "-o=jsonpath={.items[*].metadata.name}", namespace=namespace)
    return printed.split()
