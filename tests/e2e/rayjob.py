"""A RayJob of the release, which KubeRay makes a cluster for."""

import json
from typing import Any

from tests.e2e.release import Release
from tests.e2e.waiting import until

#: A cluster and a driver start, and engines where it has some, before the first piece of work.
JOB_TIMEOUT_S = 1200
#: For pods without a request.
GONE_TIMEOUT_S = 600


def succeeded(release: Release) -> dict[str, Any]:
    """The status of the release's only RayJob once that is over, which is well."""
    (job,) = release.objects("rayjobs")

    def status() -> dict[str, Any]:
        found = json.loads(release.kubectl("get", f"rayjob/{job['metadata']['name']}", "-o=json"))
        return dict(found.get("status", {}))

    ended = until(
        "the job is over",
        status,
        lambda seen: seen.get("jobDeploymentStatus") in ("Complete", "Failed"),
        JOB_TIMEOUT_S,
    )
    assert ended["jobStatus"] == "SUCCEEDED", ended
    return ended


def is_gone(release: Release, ended: dict[str, Any]) -> None:
    """Wait until nothing is left of its cluster."""
    cluster = f"raycluster/{ended['rayClusterName']}"
    until(
        "its cluster is gone",
        lambda: release.kubectl("get", cluster, "--ignore-not-found", "--output=name"),
        lambda left: not left.strip(),
        GONE_TIMEOUT_S,
    )
