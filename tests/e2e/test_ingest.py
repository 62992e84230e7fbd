"""Documents that Ray Data brings in from a claim, on a cluster that KubeRay makes for it."""

from collections.abc import Callable

import httpx

from tests.e2e import rayjob
from tests.e2e.release import Release

#: On the documents' claim, as the pods with the gateway and the pipelines see it.
FOLDER = "/var/lib/llm-serving/corpus"
INGEST = (
    "rag.docs.ingest.source=pvc://pipelines-data/corpus",
    "rag.docs.ingest.executor=ray-data",
    "rag.docs.ingest.workers=1",
    # The nodes share two cores.
    "rag.docs.ingest.resources.requests.cpu=200m",
    "rag.docs.ingest.resources.requests.memory=1Gi",
)
FILES = 40


def test_ray_data_brings_the_documents_of_a_claim_in(
    release: Release, record_property: Callable[[str, object], None]
) -> None:
    """A RayJob reads a folder of a claim and uploads it through the gateway; the release stays; the cluster goes."""
    names = {f"note-{number}.md" for number in range(FILES)}
    program = f"import os; os.makedirs('{FOLDER}', exist_ok=True)"
    program += (
        f"; [open(f'{FOLDER}/note-{{n}}.md', 'w').write(f'# Note {{n}}\\nBox {{n}} is blue.') for n in range({FILES})]"
    )
    release.kubectl("exec", release.pod("cpu"), "--container=ray", "--", "python", "-c", program)
    before = release.running()
    release.upgrade(*INGEST)
    ended = rayjob.succeeded(release)
    assert release.running() == before
    with release.forwarded() as client:
        assert names <= _listed(client)
        for name in names:  # the other steps ask the other documents
            client.delete(f"/v1/rag/docs/documents/{name}").raise_for_status()
        assert not names & _listed(client)
    release.upgrade()
    rayjob.is_gone(release, ended)
    record_property("measured", f"{FILES} documents; {ended.get('startTime')} to {ended.get('endTime')}")


def _listed(client: httpx.Client) -> set[str]:
    documents = client.get("/v1/rag/docs/documents").raise_for_status().json()["documents"]
    return {document["id"] for document in documents}
