"""charts/llm-serving/ci: what `ct` lints and installs, one feature each."""

from pathlib import Path

import pytest

from tests.chart.render import CHART, helm, render_chart
from tools.kube_apiserver import ApiServer

FILES = sorted((CHART / "ci").glob("*-values.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_api_server_accepts_it(file: Path, kube_apiserver: ApiServer) -> None:
    kube_apiserver.dry_run(render_chart(files=[file]))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_says_which_feature_it_is_for_and_is_short(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert len(lines) <= 20


def test_every_template_is_exercised() -> None:
    kinds = {one["kind"] for file in FILES for one in render_chart(files=[file])}
    assert kinds == {
        "ConfigMap",
        "EC2NodeClass",
        "Ingress",
        "NodePool",
        "PodMonitor",
        "RayService",
        "Secret",
        "ServiceAccount",
        "ServiceMonitor",
    }


def test_helm_lint_has_nothing_to_say() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))
