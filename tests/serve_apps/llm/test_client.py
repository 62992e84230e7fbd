"""serve_apps.llm.client: what it does where replicas refuse; tests/serve/test_client.py runs it in a cluster."""

from types import SimpleNamespace

import pytest
from ray.serve.exceptions import BackPressureError

from serve_apps.llm import client
from serve_apps.llm.client import patiently
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


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short ones."""
    monkeypatch.setattr(client, "AGAIN_S", 0.001)
    monkeypatch.setattr(client, "AGAIN_AT_MOST_S", 0.002)


def test_what_is_refused_is_asked_again() -> None:
    replicas = Replicas(refusals=5)
    assert patiently(replicas, patience_s=600) == "answer"
    assert replicas.asked == 6


def test_replicas_that_stay_full_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    replicas, clock = Replicas(refusals=1000), Clock(0)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=clock, sleep=sleep))
    with pytest.raises(BackPressureError):
        patiently(replicas, patience_s=0.01)
    assert replicas.asked == 6  # at 0, 1, 3, 5, 7 and 9 milliseconds


def test_other_errors_are_not_asked_again() -> None:
    asked = []

    def invalid() -> str:
        asked.append("once")
        raise ValueError("temprature")

    with pytest.raises(ValueError, match="temprature"):
        patiently(invalid, patience_s=600)
    assert asked == ["once"]
