"""cases/: values with one feature each, that a real API server must accept; what a cluster runs is the chart's ci/."""

import copy
from pathlib import Path

import pytest

from tests.chart.pods import claims_asked_twice
from tests.chart.render import render_chart, worker_group
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


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_no_pod_has_two_volumes_of_a_claim(file: Path) -> None:
    assert claims_asked_twice(render_chart(files=[file])) == []


def test_a_second_volume_of_a_claim_would_be_seen() -> None:
    objects = copy.deepcopy(render_chart(files=[Path(__file__).parent / "cases" / "one-claim.yaml"]))
    worker_group(objects, "l4")["template"]["spec"]["volumes"].append(
        {"name": "again", "persistentVolumeClaim": {"claimName": "shared"}}
    )
    assert claims_asked_twice(objects) == ["l4/shared"]
