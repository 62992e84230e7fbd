"""A batch on a cluster of its own, which has run beside the steps before this one."""

import json
from collections.abc import Callable

from tests.e2e import rayjob
from tests.e2e.night import written
from tests.e2e.release import Release, Running
from tests.e2e.test_batches import check


def test_a_job_has_a_cluster_of_its_own_while_it_runs(
    release: Release, night: Running, record_property: Callable[[str, object], None]
) -> None:
    """A RayJob: KubeRay makes a cluster for it, all lines are in its folder, the release stays; the cluster goes."""
    ended = rayjob.succeeded(release)
    check(written(release, "output.jsonl"))
    assert json.loads(written(release, "batch.json"))["status"] == "completed"
    assert release.running() == night
    release.upgrade()
    rayjob.is_gone(release, ended)
    record_property("measured", f"{ended.get('startTime')} to {ended.get('endTime')}")
