"""Every pod of a release under the Pod Security Standard *restricted*, asked of a real API server."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chart.pods import Pod, pods
from tests.chart.presets import COMBINATIONS, objects
from tests.chart.render import CHART, render_chart
from tests.chart.test_cases import CASES
from tools.kube_apiserver import ApiServer, Refused

NAMESPACE = "restricted"
FILES = [*CASES, *sorted((CHART / "ci").glob("*-values.yaml"))]


@pytest.fixture(scope="module")
def restricted(kube_apiserver: ApiServer) -> Iterator[ApiServer]:
    """An API server with a namespace that takes restricted pods only."""
    kube_apiserver.kubectl("create", "namespace", NAMESPACE)
    kube_apiserver.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    yield kube_apiserver
    kube_apiserver.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def submit(server: ApiServer, found: list[Pod]) -> None:
    """Ask for pods, all of which count on names and accounts that a cluster has."""
    submitted = []
    for number, pod in enumerate(copy.deepcopy(found)):
        pod["metadata"]["name"] = f"pod-{number}"
        submitted.append(pod)
    server.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", objects=submitted, namespace=NAMESPACE)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_pod_of_each_feature_is_restricted(file: Path, restricted: ApiServer) -> None:
    submit(restricted, list(pods(render_chart(files=[file])).values()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_pod_writes_to_its_root_file_system_and_only_the_head_has_a_token(file: Path) -> None:
    for name, pod in pods(render_chart(files=[file])).items():
        spec = pod["spec"]
        containers = [*spec.get("initContainers", ()), *spec["containers"]]
        assert all(one["securityContext"]["readOnlyRootFilesystem"] for one in containers), name
        # The head's autoscaler changes its RayCluster; KubeRay makes the pod that empties Redis from the head's.
        with_token = spec.get("automountServiceAccountToken") is not False
        assert with_token == (name in ("head", "redis-cleanup")), name


def test_every_pod_of_the_presets_is_restricted(restricted: ApiServer) -> None:
    found: list[Pod] = []
    for combination in COMBINATIONS:
        found += [pod for pod in pods(objects(combination)).values() if not _seen(pod, found)]
    submit(restricted, found)


def _seen(pod: Pod, among: list[Pod]) -> bool:
    return any(pod["spec"] == other["spec"] for other in among)


@pytest.mark.parametrize(
    "broken", ["head", "cpu", "llm-serving-redis", "llm-serving-milvus", "llm-serving-test", "redis-cleanup"]
)
def test_one_that_is_not_is_refused(broken: str, restricted: ApiServer) -> None:
    """Else the namespace would take anything, and the tests above would say nothing."""
    pod: dict[str, Any] = copy.deepcopy(
        pods(render_chart({"redis": {"enabled": True}, "milvus": {"enabled": True}}))[broken]
    )
    pod["spec"]["containers"][-1]["securityContext"] = {}
    with pytest.raises(Refused, match=r'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'):
        submit(restricted, [pod])


def test_no_pod_is_left_out() -> None:
    found = pods(render_chart(files=[CHART / "ci" / "everything-values.yaml"]))
    groups = {"cpu", "l4", "l40s", "l40s-x4", "a100-40g-x8", "h100-x8"}
    own = {"llm-serving-redis", "llm-serving-milvus", "llm-serving-test"}
    assert set(found) == {"head", "redis-cleanup", *own, *groups}
    assert [one["name"] for one in found["head"]["spec"]["containers"]] == ["ray", "autoscaler"]
    assert [one["name"] for one in found["cpu"]["spec"]["initContainers"]] == ["wait-gcs-ready"]
