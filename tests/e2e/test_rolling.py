"""A change that needs other pods: a second RayCluster, then a switch."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.e2e.load import load
from tests.e2e.release import Release
from tests.e2e.waiting import until
from tools.cluster.target import Target
from tools.demo.rendered import REPOSITORY

#: Both clusters share two cores: Ray, an engine and HAProxy start while the old ones answer.
ROLL_TIMEOUT_S = 400
TAG = "rolled"


def test_an_image_rolls_a_new_cluster(
    cluster: Target, rolling: Release, record_property: Callable[[str, object], None]
) -> None:
    """A new image: a second RayCluster starts, takes over and the first one goes, and no request fails."""
    if cluster.kind != "ours":
        pytest.skip("needs a second tag of an image on the nodes; only our own cluster's nodes can be given one")
    subprocess.run([sys.executable, "-m", "tools.cluster", "tag", "ray-serve", TAG], cwd=REPOSITORY, check=True)
    before = rolling.active_cluster()
    with load(rolling, {"embedder": "embed"}) as running:
        rolling.upgrade(f"image.serve.tag={TAG}")
        after = until(
            "another RayCluster serves", rolling.active_cluster, lambda name: name not in ("", before), ROLL_TIMEOUT_S
        )
        until(
            "the old RayCluster and its pods are gone",
            lambda: sorted(
                {one["metadata"]["name"] for one in rolling.objects("rayclusters")}
                | {pod["metadata"]["labels"]["ray.io/cluster"] for pod in rolling.pods()}
            ),
            lambda names: names == [after],
            ROLL_TIMEOUT_S,
        )
    record_property("measured", running.report)
    running.report.check()
    images = {pod["spec"]["containers"][0]["image"] for pod in rolling.pods("head")}
    assert {image.rpartition(":")[2] for image in images} == {TAG}
    rolling.helm("uninstall", rolling.name, "--wait", "--timeout=120s")
