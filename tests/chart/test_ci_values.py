"""charts/llm-serving/ci: what `ct` lints, installs on a small cluster without GPUs, and tests."""

from pathlib import Path
from typing import Any

import pytest

from tests.chart.render import CHART, helm, of_kind, ray_cluster, render_chart, serve_config
from tools.kube_apiserver import ApiServer

FILES = sorted((CHART / "ci").glob("*-values.yaml"))
#: For the pods a file starts, in all: a node of 2 cores has room for the cluster's own beside them.
CPUS = 1.2


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_api_server_accepts_it(file: Path, kube_apiserver: ApiServer) -> None:
    kube_apiserver.dry_run(render_chart(files=[file]))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_says_what_it_is_for(file: Path) -> None:
    assert file.read_text().startswith("# ")


def started(file: Path) -> list[dict[str, Any]]:
    """The templates of the Ray pods that an install starts."""
    cluster = ray_cluster(render_chart(files=[file]))
    workers = [group for group in cluster["workerGroupSpecs"] for _ in range(group["minReplicas"])]
    return [group["template"]["spec"] for group in [cluster["headGroupSpec"], *workers]]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_small_cluster_without_gpus_can_run_it(file: Path) -> None:
    requests = [pod["containers"][0]["resources"]["requests"] for pod in started(file)]
    assert sum(_cores(one["cpu"]) for one in requests) <= CPUS
    for app in serve_config(render_chart(files=[file]))["applications"]:
        assert app["args"].get("accelerator", {"type": "cpu"})["type"] == "cpu"


def _cores(quantity: str) -> float:
    return float(quantity.removesuffix("m")) / 1000 if quantity.endswith("m") else float(quantity)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_whatever_its_pods_mount_exists(file: Path) -> None:
    rendered = render_chart(files=[file])
    secrets = {
        volume["secret"]["secretName"]
        for pod in started(file)
        for volume in pod["volumes"]
        if "secret" in volume and not volume["secret"].get("optional")
    }
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in started(file)
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    accounts = {pod["serviceAccountName"] for pod in started(file) if "serviceAccountName" in pod}
    assert secrets <= set(of_kind(rendered, "Secret"))
    assert accounts <= set(of_kind(rendered, "ServiceAccount"))
    # The pipeline's, in the namespace it installs into.
    assert claims <= {"demo-models"}


def test_every_template_is_exercised() -> None:
    kinds = {one["kind"] for file in FILES for one in render_chart(files=[file])}
    assert kinds == {
        "ConfigMap",
        "EC2NodeClass",
        "ExternalSecret",
        "Ingress",
        "NetworkPolicy",
        "NodePool",
        "Pod",
        "PodDisruptionBudget",
        "PodMonitor",
        "PrometheusRule",
        "RayService",
        "Secret",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
        "StatefulSet",
    }


def test_helm_lint_has_nothing_to_say() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))
