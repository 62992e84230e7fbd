"""cases/: values with one feature each, that a real API server must accept; what a cluster runs is the chart's ci/."""

from pathlib import Path

import pytest

from tests.chart.render import render_chart
from tools.kube_apiserver import ApiServer

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_an_api_server_accepts_it(file: Path, kube_apiserver: ApiServer) -> None:
    kube_apiserver.dry_run(render_chart(files=[file]))


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_it_says_which_feature_it_is_for_and_is_short(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert len(lines) <= 20
