"""A model that cannot start, found out by its owner, and taken back."""

import subprocess
from collections.abc import Callable

import httpx

from tests.e2e.load import load
from tests.e2e.release import CHANGE_TIMEOUT_S, Release
from tests.e2e.test_in_place import ANOTHER_LIMIT, ANOTHER_MODEL
from tests.e2e.waiting import until

BROKEN = (
    "models.broken.source=pvc://demo-models/nowhere",
    "models.broken.accelerator.type=cpu",
)
#: Until KubeRay has handed the change on and a worker of the model's group has looked.
FAILED_TIMEOUT_S = 300


def test_a_broken_model_harms_no_other_and_is_taken_back(
    release: Release, record_property: Callable[[str, object], None]
) -> None:
    """A wrong path: others serve on, kubectl and the gateway say what is wrong, `helm rollback` takes it back."""
    before = release.running()
    with load(release, {"chat": "generate", "embedder": "embed"}) as running, release.forwarded() as client:
        release.also(ANOTHER_MODEL).upgrade(*ANOTHER_LIMIT, *BROKEN)
        until(
            "Serve gives up on the broken model",
            lambda: release.statuses().get("broken"),
            lambda status: status in ("DEPLOY_FAILED", "UNHEALTHY"),
            FAILED_TIMEOUT_S,
        )
        told = until(
            "the command in NOTES says why",
            lambda: notes_command(release, "applicationStatuses"),
            lambda printed: "nowhere" in printed,
            CHANGE_TIMEOUT_S,
        )
        refusal = until(
            "the gateway knows the broken model",
            lambda: chat(client, "broken"),
            lambda answer: answer.status_code != 404,
            CHANGE_TIMEOUT_S,
        )
        release.helm("rollback", release.name)
        until(
            "the broken model is gone",
            lambda: (release.statuses(), chat(client, "broken").status_code),
            lambda seen: "broken" not in seen[0] and seen[1] == 404,
            CHANGE_TIMEOUT_S,
        )
        release.wait_until_running()
    record_property("measured", running.report)
    record_property("measured", f"the gateway said: {refusal.status_code} {refusal.text[:300]}")
    running.report.check()
    assert "/mnt/models/demo-models/nowhere" in told
    assert refusal.status_code == 503
    error = refusal.json()["error"]
    assert error["code"] == "model_unavailable"
    assert "broken" in error["message"]
    after = release.running()
    assert after.pods == before.pods
    assert {name: after.replicas[name] for name in ("chat", "embedder")} == {
        name: before.replicas[name] for name in ("chat", "embedder")
    }


def notes_command(release: Release, word: str) -> str:
    """What the command prints that NOTES give and that has ``word`` in it."""
    notes = release.helm("get", "notes", release.name)
    (command,) = (line.strip() for line in notes.splitlines() if word in line)
    done = subprocess.run(
        ["bash", "-c", command],
        env=release.target.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def chat(client: httpx.Client, model: str) -> httpx.Response:
    """One chat completion, whatever becomes of it."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    return client.post("/v1/chat/completions", json=body)
