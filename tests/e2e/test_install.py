"""The preset agent on the environment ci, as a newcomer installs it."""

import json
from collections.abc import Callable

from tests.e2e.release import CHANGE_TIMEOUT_S, Release
from tests.e2e.waiting import until

#: Of ray-serve on a node; images/ray-serve/README.md says what is in it.
MOST_BYTES = 900_000_000


def test_it_is_installed_and_becomes_ready(release: Release) -> None:
    """`helm install --wait` of agent.yaml on ci.yaml, under Pod Security "restricted": Ready, all of it running."""
    assert release.statuses() == dict.fromkeys(("gateway", "chat", "embedder", "rag", "agent", "batch"), "RUNNING")


def test_its_notes_lead_to_it(release: Release) -> None:
    """What Helm printed names the wait that was done, the Service and the Secret that the other steps use."""
    notes = release.helm("get", "notes", release.name)
    assert f"wait rayservice/{release.name} --for=condition=Ready" in notes
    assert f"port-forward svc/{release.service} 8000" in notes
    assert f"get secret {release.name}-initial-key" in notes


def test_helm_test_asks_it(release: Release) -> None:
    """`helm test` asks the deployed gateway: a chat, an embedding, a question about a document."""
    assert "Phase:          Succeeded" in release.helm("test", release.name, f"--timeout={CHANGE_TIMEOUT_S}s")


def test_the_image_of_the_head_and_the_gateway_stays_small(
    release: Release, record_property: Callable[[str, object], None]
) -> None:
    """ray-serve takes 900 MB of a node at most."""
    image = release.serve_image()

    def sizes() -> list[int]:
        nodes = json.loads(release.target.kubectl("get", "nodes", "-o=json"))["items"]
        images = [one for node in nodes for one in node["status"].get("images", [])]
        return [one["sizeBytes"] for one in images if any(name.endswith(image) for name in one.get("names", []))]

    size = max(until("a node tells of the image", sizes, bool, CHANGE_TIMEOUT_S))
    record_property("measured", f"{size / 1e6:.0f} MB")
    assert size <= MOST_BYTES
