"""The head is lost under load and with a batch under way; Redis and the batch's folder hold what is known."""

from collections.abc import Callable

from openai import DEFAULT_MAX_RETRIES

from tests.e2e.load import load
from tests.e2e.release import Release, is_ready
from tests.e2e.test_batches import BATCH_TIMEOUT_S, begin, finish
from tests.e2e.waiting import until

#: Of the batch: at four at a time, beside the load, they take about as long as the head is away.
LINES, TOKENS = 120, 8
#: From the loss to a new head that knows all applications, in seconds.
RECOVERY_TIMEOUT_S = 600


def test_a_lost_head_fails_no_request_and_no_line(
    release: Release, record_property: Callable[[str, object], None]
) -> None:
    """The head pod is killed under 5 requests a second and a batch: none fails, no line is lost, no worker restarts."""
    before = release.running()
    head = release.pod("head")
    with load(release, {"chat": "generate", "embedder": "embed"}) as running:
        with release.client(DEFAULT_MAX_RETRIES) as client:
            batch = begin(client, LINES, TOKENS)
            until(
                "lines are answered",
                lambda: client.batches.retrieve(batch.id).request_counts,
                lambda counts: counts and 0 < counts.completed < LINES,
                BATCH_TIMEOUT_S,
            )
        release.kubectl("delete", "pod", head, "--force", "--grace-period=0")
        until(
            "a new head is ready",
            lambda: [pod for pod in release.pods("head") if pod["metadata"]["name"] != head],
            lambda pods: any(is_ready(pod) for pod in pods),
            RECOVERY_TIMEOUT_S,
        )
        release.wait_until_running(RECOVERY_TIMEOUT_S)
    with release.client(DEFAULT_MAX_RETRIES) as client:
        ended = finish(client, batch, LINES)
    record_property("measured", running.report)
    record_property("measured", f"{LINES} lines in {(ended.completed_at or 0) - ended.created_at} s")
    running.report.check()
    after = release.running()
    kept = {name: pod for name, pod in before.pods.items() if name != head}
    assert {name: after.pods.get(name) for name in kept} == kept
    assert after.replicas == before.replicas
