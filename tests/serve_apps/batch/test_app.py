from pathlib import Path
from typing import Any

import pytest
from ray.serve import Application

from serve_apps.batch.app import BatchServer, RayMetrics, build_app
from serve_apps.batch.config import BatchArgs, BatchSettings
from serve_apps.batch.leases import StoredLeases
from serve_apps.common import redis


@pytest.fixture
def args(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchArgs:
    (tmp_path / "internal").mkdir()
    (tmp_path / "internal" / "token").write_text("token")
    monkeypatch.setenv("LLM_SERVING_SECRETS", str(tmp_path))
    return BatchArgs(gateway_url="http://127.0.0.1:8000", storage=f"file://{tmp_path}/storage")


@pytest.fixture(autouse=True)
def niceness(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What replicas added to their niceness; they are in this process."""
    added: list[int] = []
    monkeypatch.setattr("os.nice", added.append)
    return added


def test_the_application_is_one_deployment_named_batch(args: BatchArgs) -> None:
    app = build_app(args)
    assert isinstance(app, Application)
    assert app._bound_deployment.name == "Batch"


def test_a_replica_stands_back_from_what_shares_its_cores(args: BatchArgs, niceness: list[int]) -> None:
    BatchServer(args)
    assert niceness == [10]


def test_new_settings_are_in_force_and_wrong_ones_change_nothing(args: BatchArgs) -> None:
    replica = BatchServer(args)
    replica.reconfigure({"concurrency": 3})
    replica.reconfigure({"concurrencyy": 4})
    assert replica._place.settings() == BatchSettings(concurrency=3)
    assert replica._place.paces.at("chat").limit == 3


def test_a_replica_does_not_start_without_the_internal_credential(args: BatchArgs, tmp_path: Path) -> None:
    (tmp_path / "internal" / "token").unlink()
    with pytest.raises(RuntimeError, match="internal credential: cannot read"):
        BatchServer(args)


def test_replicas_agree_through_redis_where_there_is_one(args: BatchArgs) -> None:
    assert isinstance(BatchServer(args)._leases, StoredLeases)
    with_redis = args.model_copy(update={"redis": "redis://127.0.0.1:1/1"})
    assert isinstance(BatchServer(with_redis)._leases, redis.Leases)


def test_what_is_observed_becomes_metrics_with_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, dict[str, str]]] = []

    class Counter:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...], **_: Any) -> None:
            self._name, self._tag_keys = name, tag_keys

        def inc(self, value: float = 1, tags: dict[str, str] | None = None) -> None:
            assert set(tags or {}) == set(self._tag_keys)
            told.append((self._name, tags or {}))

    monkeypatch.setattr("ray.serve.metrics.Counter", Counter)
    observer = RayMetrics()
    observer.replied(refused=True)
    observer.ended("completed")
    assert told == [("llm_batch_replies", {"outcome": "refused"}), ("llm_batch_ended", {"status": "completed"})]
