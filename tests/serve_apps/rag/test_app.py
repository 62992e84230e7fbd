import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ray.exceptions import RayActorError
from ray.serve import Application

from serve_apps.common.errors import InvalidRequest, NotFound, Unavailable
from serve_apps.rag.app import Rag, RayMetrics, Reading, build_app
from serve_apps.rag.config import RagArgs
from serve_apps.rag.pipelines import Pipelines
from serve_apps.rag.sections import Section

ARGS = RagArgs(gateway_url="http://127.0.0.1:8000")
DOCS: dict[str, Any] = {"llm": "chat", "embedder": "minilm", "vectorStore": {"uri": "a.db"}}


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of mounted Secrets, with the internal credential."""
    (tmp_path / "internal").mkdir()
    (tmp_path / "internal" / "token").write_text("token")
    monkeypatch.setenv("LLM_SERVING_SECRETS", str(tmp_path))
    monkeypatch.setenv("LLM_SERVING_DATA", str(tmp_path))
    return tmp_path


class Handle:
    """A handle of a deployment whose one replica is this process."""

    def __init__(self, method: Any) -> None:
        self.read = self
        self.remote = method


def start(method: Any = None) -> Rag:
    readers: Any = Handle(method or Reading().read)
    return Rag(ARGS, readers)


def test_the_application_is_a_deployment_that_answers_and_one_that_reads() -> None:
    app = build_app(ARGS)
    assert isinstance(app, Application)
    _, readers = app._bound_deployment.init_args
    assert (app._bound_deployment.name, readers._bound_deployment.name) == ("Rag", "Reading")


@pytest.mark.usefixtures("secrets")
def test_documents_are_read_elsewhere() -> None:
    replica = start()
    read = asyncio.run(replica._read(b"# A\n\ntext", "text/markdown", "a.md", False))
    assert read.sections == [Section("text", ("A",))]
    with pytest.raises(InvalidRequest, match=r"document 'a\.pdf': is not a readable PDF"):
        asyncio.run(replica._read(b"x", "application/pdf", "a.pdf", False))


@pytest.mark.usefixtures("secrets")
def test_a_reader_that_is_gone_is_no_fault_of_the_documents() -> None:
    async def gone(*_: Any) -> None:
        raise RayActorError

    with pytest.raises(Unavailable, match=r"document 'a\.pdf': what read it has ended; send it again") as raised:
        asyncio.run(start(gone)._read(b"x", "application/pdf", "a.pdf", False))
    assert raised.value.retry_after_s


@pytest.mark.usefixtures("secrets")
def test_a_new_configuration_replaces_the_pipelines() -> None:
    replica = start()
    asyncio.run(replica.reconfigure({"pipelines": {"docs": DOCS}}))
    asyncio.run(replica.reconfigure({"pipelines": {"wiki": DOCS}}))
    assert replica._pipelines.find("wiki", "acme").settings.llm == "chat"
    with pytest.raises(NotFound, match="there are wiki"):
        replica._pipelines.find("docs", "acme")


@pytest.mark.usefixtures("secrets")
def test_a_replica_does_not_start_with_a_configuration_that_is_not_valid() -> None:
    with pytest.raises(ValidationError, match="topk"):
        asyncio.run(start().reconfigure({"pipelines": {"docs": DOCS | {"topk": 3}}}))


@pytest.mark.usefixtures("secrets")
def test_a_configuration_that_is_not_valid_changes_nothing() -> None:
    replica = start()
    asyncio.run(replica.reconfigure({"pipelines": {"docs": DOCS}}))
    asyncio.run(replica.reconfigure({"pipelines": {"docs": DOCS | {"topk": 3}}}))
    assert replica._pipelines.find("docs", "acme").settings.top_k == 5


@pytest.mark.usefixtures("secrets")
def test_a_new_replica_has_its_documents_at_hand_and_a_running_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        at_hand = asyncio.Event()

        async def prepare(_: Pipelines) -> None:
            await at_hand.wait()

        monkeypatch.setattr(Pipelines, "prepare", prepare)
        replica = start()
        starting = asyncio.create_task(replica.reconfigure({"pipelines": {"docs": DOCS}}))
        await asyncio.sleep(0.05)
        assert not starting.done()
        at_hand.set()
        await starting
        at_hand.clear()
        async with asyncio.timeout(20):
            await replica.reconfigure({"pipelines": {"wiki": DOCS}})

    asyncio.run(story())


def test_a_replica_does_not_start_without_the_internal_credential(secrets: Path) -> None:
    (secrets / "internal" / "token").unlink()
    with pytest.raises(RuntimeError, match="internal credential: cannot read"):
        start()


def test_what_is_observed_becomes_metrics_with_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float, dict[str, str]]] = []

    class Metric:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...], **_: Any) -> None:
            self._name, self._tag_keys = name, tag_keys

        def inc(self, value: float, tags: dict[str, str]) -> None:
            assert set(tags) == set(self._tag_keys)
            told.append((self._name, value, tags))

        observe = inc

    for kind in ("Counter", "Histogram"):
        monkeypatch.setattr(f"ray.serve.metrics.{kind}", Metric)
    observer = RayMetrics()
    with pytest.raises(KeyError), observer.stage("docs", "embed"):
        raise KeyError
    observer.degraded("docs", "rerank")
    observer.found("docs", 5)
    observer.found("docs", 0)
    observer.ingested("docs", 7)
    observer.store_called(True)
    observer.store_called(False)
    (stage, seconds, labels), *others = told
    assert (stage, labels) == ("llm_rag_stage_duration_seconds", {"pipeline": "docs", "stage": "embed"})
    assert seconds >= 0
    assert others == [
        ("llm_rag_degraded_answers", 1, {"pipeline": "docs", "stage": "rerank"}),
        ("llm_rag_sources", 5, {"pipeline": "docs"}),
        ("llm_rag_sources", 0, {"pipeline": "docs"}),
        ("llm_rag_unfound_questions", 1, {"pipeline": "docs"}),
        ("llm_rag_chunks_ingested", 7, {"pipeline": "docs"}),
        ("llm_rag_store_calls", 1, {"outcome": "answered"}),
        ("llm_rag_store_calls", 1, {"outcome": "failed"}),
    ]
