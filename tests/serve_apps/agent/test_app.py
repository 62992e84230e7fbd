from pathlib import Path
from typing import Any

import pytest
from ray.serve import Application

from serve_apps.agent.app import AgentServer, RayMetrics, build_app
from serve_apps.agent.config import AgentArgs
from serve_apps.common.errors import NotFound

ARGS = AgentArgs(gateway_url="http://127.0.0.1:8000")


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of mounted Secrets, with the internal credential."""
    (tmp_path / "internal").mkdir()
    (tmp_path / "internal" / "token").write_text("token")
    monkeypatch.setenv("LLM_SERVING_SECRETS", str(tmp_path))
    return tmp_path


def test_the_application_is_one_deployment_named_agent() -> None:
    app = build_app(ARGS)
    assert isinstance(app, Application)
    assert app._bound_deployment.name == "Agent"


@pytest.mark.usefixtures("secrets")
def test_a_new_configuration_replaces_the_agents_and_a_wrong_one_changes_nothing() -> None:
    replica = AgentServer(ARGS)
    replica.reconfigure({"agents": {"helper": {"model": "chat"}, "other": {"model": "chat"}}})
    helper = replica._agents.find("helper")
    replica.reconfigure({"agents": {"helper": {"model": "chat"}}})
    assert replica._agents.find("helper") is helper
    with pytest.raises(NotFound, match="there are helper"):
        replica._agents.find("other")
    replica.reconfigure({"agents": {"helper": {"modell": "chat"}}})
    assert replica._agents.find("helper") is helper


def test_a_replica_does_not_start_without_the_internal_credential(secrets: Path) -> None:
    (secrets / "internal" / "token").unlink()
    with pytest.raises(RuntimeError, match="internal credential: cannot read"):
        AgentServer(ARGS)


def test_what_is_observed_becomes_metrics_with_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float, dict[str, str]]] = []

    class Metric:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...], **_: Any) -> None:
            self._name, self._tag_keys = name, tag_keys

        def observe(self, value: float, tags: dict[str, str]) -> None:
            assert set(tags) == set(self._tag_keys)
            told.append((self._name, value, tags))

    monkeypatch.setattr("ray.serve.metrics.Histogram", Metric)
    observer = RayMetrics()
    observer.turned("helper", 1.5)
    observer.called("helper", "sums", failed=True, duration_s=0.1)
    observer.ended("helper", "tokens", 3)
    assert told == [
        ("llm_agent_turn_duration_seconds", 1.5, {"agent": "helper"}),
        ("llm_agent_tool_duration_seconds", 0.1, {"agent": "helper", "tool": "sums", "outcome": "failed"}),
        ("llm_agent_request_duration_seconds", 3, {"agent": "helper", "ending": "tokens"}),
    ]
