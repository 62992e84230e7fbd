"""serve_apps.llm.client: what it does where replicas refuse; tests/serve/test_client.py runs it in a cluster."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.exceptions import BackPressureError

from serve_apps.llm import client
from serve_apps.llm.client import Model, patiently
from tests.serve_apps.clock import Clock


class Replicas:
    """Refuse as often as they are told, then answer."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.asked = 0

    def __call__(self) -> str:
        """One prompt."""
        self.asked += 1
        if self.asked <= self.refusals:
            raise BackPressureError(num_queued_requests=2, max_queued_requests=2)
        return "answer"


class Serve:
    """Takes a config in, and a while to have its replicas take it in."""

    def __init__(self, clock: Clock, takes_s: float) -> None:
        self._clock = clock
        self._done_s = clock() + takes_s
        self._server: dict[str, Any] = {"name": "VLLMServer:chat", "user_config": {}}

    def get_serve_details(self) -> dict[str, Any]:
        status = "HEALTHY" if self._clock() >= self._done_s else "UPDATING"
        running = {"name": "VLLMServer:chat", "status": status, "deployment_config": self._server}
        config = {"name": "chat", "deployments": [self._server]}
        return {"applications": {"chat": {"deployed_app_config": config, "deployments": {"VLLMServer:chat": running}}}}

    def deploy_applications(self, config: dict[str, Any]) -> None:
        (self._server,) = config["applications"][0]["deployments"]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The client's; pauses move it on."""
    clock = Clock()

    def pause(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=clock, sleep=pause))
    return clock


def model(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> Model:
    """The model ``chat``, which ``serve`` has."""
    monkeypatch.setattr(client, "ServeSubmissionClient", lambda _: serve)
    monkeypatch.setattr(client, "get_address_for_submission_client", lambda _: "")
    made = Model.__new__(Model)  # without a cluster
    made._name = "chat"
    return made


def test_what_is_refused_is_asked_again() -> None:
    replicas = Replicas(refusals=5)
    assert patiently(replicas, patience_s=600) == "answer"
    assert replicas.asked == 6


def test_replicas_that_stay_full_are_said_to_be(clock: Clock) -> None:
    began_s = clock()
    replicas = Replicas(refusals=1000)
    with pytest.raises(BackPressureError):
        patiently(replicas, patience_s=60)
    assert 10 < replicas.asked < 1000
    assert clock() - began_s <= 60


def test_other_errors_are_not_asked_again() -> None:
    asked = []

    def invalid() -> str:
        asked.append("once")
        raise ValueError("temprature")

    with pytest.raises(ValueError, match="temprature"):
        patiently(invalid, patience_s=600)
    assert asked == ["once"]


def test_settings_are_waited_for_while_a_replica_starts_and_another_ends(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    model(monkeypatch, Serve(clock, takes_s=120)).reconfigure(max_ongoing_requests=8)


def test_settings_that_do_not_come_into_force_are_said_not_to(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    with pytest.raises(TimeoutError, match="chat: not in force after 90 s"):
        model(monkeypatch, Serve(clock, takes_s=120)).reconfigure(max_ongoing_requests=8, timeout_s=90)
