"""A batch on a cluster of its own, which has run beside the steps before this one."""

import json
from collections.abc import Callable
from typing import Any

from tests.e2e.night import written
from tests.e2e.release import Release, Running
from tests.e2e.test_batches import check
from tests.e2e.waiting import until

#: A cluster, an engine and a driver start before the first line.
JOB_TIMEOUT_S = 1200
#: For pods without a request.
GONE_TIMEOUT_S = 600


def test_a_job_has_a_cluster_of_its_own_while_it_runs(
    release: Release, night: Running, record_property: Callable[[str, object], None]
) -> None:
    """A RayJob: KubeRay makes a cluster for it, all lines are in its folder, the release stays; the cluster goes."""
    (job,) = release.objects("rayjobs")
    name = job["metadata"]["name"]

    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(release.kubectl("get", f"rayjob/{name}", "-o=json")).get("status", {})
        return found

    ended = until(
        "the job is over",
        status,
        lambda seen: seen.get("jobDeploymentStatus") in ("Complete", "Failed"),
        JOB_TIMEOUT_S,
    )
    assert ended["jobStatus"] == "SUCCEEDED", ended
    check(written(release, "output.jsonl"))
    assert json.loads(written(release, "batch.json"))["status"] == "completed"
    assert release.running() == night
    release.upgrade()
    cluster = f"raycluster/{ended['rayClusterName']}"
    until(
        "its cluster is gone",
        lambda: release.kubectl("get", cluster, "--ignore-not-found", "--output=name"),
        lambda left: not left.strip(),
        GONE_TIMEOUT_S,
    )
    record_property("measured", f"{ended.get('startTime')} to {ended.get('endTime')}")
