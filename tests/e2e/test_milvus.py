"""The Milvus of the release: a pipeline keeps its documents there, over Milvus' protocol and with the password made."""

from tests.e2e.documents import QUESTION, SOURCE, cited, post
from tests.e2e.release import CHANGE_TIMEOUT_S, Release, sdk
from tests.e2e.test_in_place import ANOTHER_LIMIT, ANOTHER_MODEL
from tests.e2e.waiting import until

PIPELINE = "shelf"
WITH_MILVUS = (
    *ANOTHER_LIMIT,
    "milvus.enabled=true",
    *(f"rag.{PIPELINE}.llm=chat", f"rag.{PIPELINE}.embedder=embedder"),
    # As the environment has it for docs: two cores for all, and a small model.
    *(f"rag.{PIPELINE}.vectorStore.timeoutS=20", f"rag.{PIPELINE}.embedTimeoutS=20"),
    *(f"rag.{PIPELINE}.maxContextWords=500", f"rag.{PIPELINE}.maxTokens=64"),
)
#: Asks Milvus for its collections without a password.
STRANGER = """
from pymilvus import MilvusClient, MilvusException
try:
    print(MilvusClient("http://{name}:19530", timeout=20).list_collections())
except MilvusException:
    print("refused")
"""
START_TIMEOUT_S = 600


def test_a_pipeline_keeps_its_documents_on_the_milvus_of_the_release(release: Release) -> None:
    """`helm upgrade` installs Milvus and a pipeline on it: no Ray pod or replica changes, and its answers cite."""
    release.also(ANOTHER_MODEL).upgrade(*ANOTHER_LIMIT)
    release.wait_until_running()
    before = release.running()
    release.also(ANOTHER_MODEL).upgrade(*WITH_MILVUS)
    started(release)
    with release.forwarded() as http, sdk(http) as client:
        # The pods that were there before the Secret see it within a minute or so.
        until(
            "documents are taken in",
            lambda: post(http, PIPELINE).status_code,
            lambda status: status == 200,
            CHANGE_TIMEOUT_S,
        )
        assert SOURCE in cited(client, PIPELINE)
    assert release.running() == before


def test_who_has_no_password_reads_nothing(release: Release) -> None:
    """Milvus refuses a client without the password, even from the pod that hosts the pipelines."""
    program = STRANGER.format(name=name(release))
    command = ("exec", release.pod("cpu"), "--container=ray", "--", "python", "-c", program)
    assert release.kubectl(*command).split()[-1:] == ["refused"]


def test_documents_are_there_after_a_stop(release: Release) -> None:
    """Milvus is stopped as for a backup: searches say that they lack it. It starts, and its documents are there."""
    release.kubectl("scale", "statefulset", name(release), "--replicas=0")
    with release.forwarded() as client:

        def searched() -> tuple[list[str], list[str]]:
            answer = client.post(f"/v1/rag/{PIPELINE}/search", json={"query": QUESTION}).json()
            return [one["document"] for one in answer["results"]], answer["degraded"]

        until("it is gone", searched, lambda seen: not seen[0] and "retrieval" in seen[1], CHANGE_TIMEOUT_S)
        release.kubectl("scale", "statefulset", name(release), "--replicas=1")
        started(release)
        until("documents are found", searched, lambda seen: SOURCE in seen[0] and not seen[1], CHANGE_TIMEOUT_S)


def test_its_volume_and_its_password_outlive_it(release: Release) -> None:
    """Without `milvus.enabled` the pod goes; its claim and its Secret stay until somebody deletes them."""
    kept = (f"persistentvolumeclaim/data-{name(release)}-0", f"secret/{name(release)}")
    release.also(ANOTHER_MODEL).upgrade(*ANOTHER_LIMIT)
    until(
        "Milvus is gone",
        lambda: release.objects("pods", "app.kubernetes.io/component=milvus"),
        lambda pods: not pods,
        CHANGE_TIMEOUT_S,
    )
    there = release.kubectl("get", *kept, "--output=name").split()
    release.kubectl("delete", *kept)
    assert there == list(kept)


def name(release: Release) -> str:
    """The name of everything that belongs to it."""
    return f"{release.name}-milvus"


def started(release: Release) -> None:
    """Wait until it is ready."""
    arguments = ("rollout", "status", f"statefulset/{name(release)}", f"--timeout={START_TIMEOUT_S}s")
    release.kubectl(*arguments, timeout_s=START_TIMEOUT_S + 30)
