"""What a release wants of a cluster, read from its own objects."""

from pathlib import Path

import pytest

from tests.chart.test_cases import CASES
from tools.doctor.wanted import wanted
from tools.gotools import helm
from tools.plan.release import render


@pytest.mark.parametrize("case", ["batch-job", "ingest-ray-data", "milvus", "standalone"])
def test_every_pod_that_is_counted_has_a_template(case: str, tmp_path: Path) -> None:
    (file,) = (one for one in CASES if one.stem == case)
    needed = wanted(render(helm(), [file], tmp_path))
    assert all(pods.containers for pods in needed.pods)


def test_the_pods_of_ray_data_are_among_them(tmp_path: Path) -> None:
    (file,) = (one for one in CASES if one.stem == "ingest-ray-data")
    pods = {one.name: (one.least, one.most) for one in wanted(render(helm(), [file], tmp_path)).pods}
    assert (pods["rag.manuals.ingest"], pods["rag.manuals.ingest.head"]) == ((0, 4), (0, 1))
