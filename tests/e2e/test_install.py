"""The preset agent on the environment ci, as a newcomer installs it."""

from tests.e2e.release import CHANGE_TIMEOUT_S, Release


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
