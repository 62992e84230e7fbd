"""An embedded vector store's file lies on a claim, not in the pod."""

import openai

from tests.e2e.documents import SOURCE, cited, upload
from tests.e2e.release import Release, is_ready
from tests.e2e.waiting import until

#: From a lost pod to an answer from its successor, in seconds.
RECOVERY_TIMEOUT_S = 600


def test_documents_outlive_the_pod_that_took_them_in(release: Release) -> None:
    """The pod with the gateway and the pipelines is lost; its successor answers from the documents it never saw."""
    with release.forwarded() as client:
        upload(client)
    lost = release.pod("cpu")
    release.kubectl("delete", "pod", lost, "--force", "--grace-period=0")
    until(
        "another pod serves",
        lambda: [pod["metadata"]["name"] for pod in release.pods("cpu") if is_ready(pod)],
        lambda ready: ready and lost not in ready,
        RECOVERY_TIMEOUT_S,
    )
    release.wait_until_running(RECOVERY_TIMEOUT_S)
    with release.client() as sdk:

        def found() -> list[str]:
            try:
                return cited(sdk)
            except openai.APIError as error:  # the gateway is there a moment before the pipelines
                return [repr(error)]

        until("its successor answers from them", found, lambda sources: SOURCE in sources, RECOVERY_TIMEOUT_S)
