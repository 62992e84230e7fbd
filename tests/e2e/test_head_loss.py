"""The head is lost under load; Redis holds what it knew."""

from collections.abc import Callable

from tests.e2e.load import load
from tests.e2e.release import Release, is_ready
from tests.e2e.waiting import until

#: From the loss to a new head that knows all applications, in seconds.
RECOVERY_TIMEOUT_S = 600


def test_a_lost_head_fails_no_request(release: Release, record_property: Callable[[str, object], None]) -> None:
    """The head pod is killed under 5 requests a second: none fails, no worker restarts, a new head knows them all."""
    before = release.running()
    head = release.pod("head")
    with load(release, {"chat": "generate", "embedder": "embed"}) as running:
        release.kubectl("delete", "pod", head, "--force", "--grace-period=0")
        until(
            "a new head is ready",
            lambda: [pod for pod in release.pods("head") if pod["metadata"]["name"] != head],
            lambda pods: any(is_ready(pod) for pod in pods),
            RECOVERY_TIMEOUT_S,
        )
        release.wait_until_running(RECOVERY_TIMEOUT_S)
    record_property("measured", running.report)
    running.report.check()
    after = release.running()
    kept = {name: pod for name, pod in before.pods.items() if name != head}
    assert {name: after.pods.get(name) for name in kept} == kept
    assert after.replicas == before.replicas
