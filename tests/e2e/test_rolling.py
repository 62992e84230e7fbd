"""A change that needs other pods: a second RayCluster, then a switch."""

from collections.abc import Callable

from tests.e2e.load import load
from tests.e2e.release import Begun, Release
from tests.e2e.waiting import until

#: Both clusters share two cores: Ray, an engine and HAProxy start while the old ones answer.
ROLL_TIMEOUT_S = 1200
#: The registry that images without one come from: other names for the images that the nodes have.
REGISTRY = "docker.io"


def test_an_image_rolls_a_new_cluster(
    rolling: Release, rolling_ends: list[Begun], record_property: Callable[[str, object], None]
) -> None:
    """A new image: a second RayCluster starts, takes over and the first one goes, and no request fails."""
    before = rolling.active_cluster()
    with load(rolling, {"embedder": "embed"}) as running:
        rolling.upgrade(f"image.registry={REGISTRY}")
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
    images = [pod["spec"]["containers"][0]["image"] for pod in rolling.pods()]
    assert images
    assert all(image.startswith(f"{REGISTRY}/") for image in images)
    rolling_ends.append(rolling.begin_uninstall())
