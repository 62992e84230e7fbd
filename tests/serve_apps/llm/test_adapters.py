import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from serve_apps.common.errors import NotFound, ServingError, Unavailable, Unprocessable
from serve_apps.llm import adapters as module
from serve_apps.llm.adapters import Adapters, OnDemand
from serve_apps.llm.config import AdapterSources
from serve_apps.llm.fetching import fetch
from serve_apps.llm.peft import CONFIG, WEIGHTS
from tests.serve_apps.llm.test_peft import BASE, made


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


class FakeEngine:
    """Notes what it is told; fails with what ``failure`` is."""

    def __init__(self) -> None:
        self.loads: list[tuple[str, str]] = []
        self.folders: dict[str, Path] = {}
        self.failure: Exception | None = None

    async def load(self, name: str, version: str, folder: Path) -> None:
        assert names_in(folder) == {CONFIG, WEIGHTS}
        if self.failure is not None:
            raise self.failure
        self.loads.append((name, version))
        self.folders[name] = folder

    def unload(self, name: str) -> None:
        del self.folders[name]


@pytest.fixture
def claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ``pvc://claim`` names."""
    monkeypatch.setenv("LLM_SERVING_MODELS", str(tmp_path / "models"))
    return tmp_path / "models" / "claim"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def adapters(engine: FakeEngine, tmp_path: Path) -> Adapters:
    """Room for one adapter in memory, and so for the files of four."""
    made = Adapters("chat", engine, BASE, in_memory=1, root=tmp_path / "files")
    made.follow(AdapterSources(directory="pvc://claim"))
    return made


async def use(adapters: Adapters, name: str) -> None:
    async with adapters.loaded(name):
        pass


def refusal(adapters: Adapters, name: str) -> ServingError:
    with pytest.raises(ServingError) as caught:
        asyncio.run(use(adapters, name))
    return caught.value


def test_an_adapter_is_loaded_when_it_is_asked_for_first(adapters: Adapters, engine: FakeEngine, claim: Path) -> None:
    made(claim / "sql")

    async def twice() -> None:
        await use(adapters, "sql")
        await asyncio.gather(use(adapters, "sql"), use(adapters, "sql"))

    asyncio.run(twice())
    assert engine.loads == [("sql", "sql")]


def test_requests_that_come_together_wait_for_one_load(
    adapters: Adapters, engine: FakeEngine, claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(claim / "sql")
    fetched, go = fetch, threading.Event()

    def slow(*arguments: Any) -> str:
        go.wait(60)
        return fetched(*arguments)

    monkeypatch.setattr(module, "fetch", slow)

    async def together() -> None:
        first, second = (asyncio.ensure_future(use(adapters, "sql")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()  # a client that leaves; the other still waits
        await asyncio.wait([first])
        go.set()
        await second

    asyncio.run(together())
    assert engine.loads == [("sql", "sql")]


@pytest.mark.parametrize("name", ["nope", "../claim/sql", "/etc", ".", "..", "sql/", "a\0b", "", "a" * 64, "sql\n"])
def test_there_is_no_adapter_of_another_name(adapters: Adapters, engine: FakeEngine, claim: Path, name: str) -> None:
    made(claim / "sql")
    error = refusal(adapters, name)
    assert isinstance(error, NotFound)
    assert (error.message, error.code) == (f'The model "chat:{name}" does not exist.', "model_not_found")
    assert engine.loads == []


def test_a_model_without_a_directory_has_only_what_is_named(adapters: Adapters, claim: Path) -> None:
    made(claim / "sql")
    adapters.follow(AdapterSources(named={"query": "pvc://claim/sql"}))
    asyncio.run(use(adapters, "query"))
    assert isinstance(refusal(adapters, "sql"), NotFound)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda folder: made(folder, rank=16), "its rank is 16, and this model takes 8 at most (lora.maxRank)"),
        (lambda folder: (folder / WEIGHTS).unlink(), "its source has no adapter_model.safetensors"),
        (lambda folder: (folder / CONFIG).write_text("{"), "its adapter_config.json is not a JSON object"),
    ],
)
def test_a_broken_adapter_is_refused_with_the_reason_and_harms_no_other(
    adapters: Adapters, engine: FakeEngine, claim: Path, tmp_path: Path, damage: Any, why: str
) -> None:
    made(claim / "sql")
    damage(made(claim / "broken"))
    error = refusal(adapters, "broken")
    assert isinstance(error, Unprocessable)
    assert error.message == f'The adapter "broken" of the model "chat" cannot be used: {why}.'
    asyncio.run(use(adapters, "sql"))
    assert engine.loads == [("sql", "sql")]
    assert len(list((tmp_path / "files").iterdir())) == 1, "the broken one's files stayed"


def test_one_that_is_named_and_not_there_is_broken(adapters: Adapters, claim: Path) -> None:
    adapters.follow(AdapterSources(named={"sql": "pvc://claim/sql"}))
    error = refusal(adapters, "sql")
    assert isinstance(error, Unprocessable)
    assert error.message.endswith("its source has no adapter_config.json.")


def test_what_the_engine_says_is_told_without_our_folders(adapters: Adapters, engine: FakeEngine, claim: Path) -> None:
    made(claim / "sql")
    engine.failure = ValueError(f"Call failed:\nWhile loading {claim.parents[1]}/files/0, unexpected modules.")
    assert refusal(adapters, "sql").message.endswith("cannot be used: While loading its folder, unexpected modules.")
    engine.failure = None
    made(claim / "sql", seed=2)
    asyncio.run(use(adapters, "sql"))
    assert engine.loads == [("sql", "sql")], "what never was loaded is no version"


def test_once_mended_it_works(adapters: Adapters, engine: FakeEngine, claim: Path) -> None:
    made(claim / "sql", rank=16)
    refusal(adapters, "sql")
    made(claim / "sql")
    asyncio.run(use(adapters, "sql"))
    assert engine.loads == [("sql", "sql")]


def test_a_source_that_cannot_be_read_now_is_to_be_asked_again(
    adapters: Adapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> str:
        raise OSError("connection refused")

    monkeypatch.setattr(module, "fetch", fails)
    error = refusal(adapters, "sql")
    assert isinstance(error, Unavailable)
    assert error.retry_after_s
    assert "connection" not in error.message


def test_files_are_kept_of_those_asked_for_last_and_of_those_in_use(
    adapters: Adapters, engine: FakeEngine, claim: Path, tmp_path: Path
) -> None:
    for name in "abcdef":
        made(claim / name)

    async def through() -> None:
        async with adapters.loaded("a"):
            for name in "bcdbef":
                await use(adapters, name)
            assert set(engine.folders) == {"a", "b", "e", "f"}
        await use(adapters, "c")
        assert set(engine.folders) == {"b", "c", "e", "f"}

    asyncio.run(through())
    assert {str(folder) for folder in engine.folders.values()} == {str(f) for f in (tmp_path / "files").iterdir()}


def test_one_that_has_moved_is_loaded_anew_as_another_version(
    adapters: Adapters, engine: FakeEngine, claim: Path, tmp_path: Path
) -> None:
    made(claim / "one", seed=1)
    made(claim / "two", seed=2)

    async def through() -> None:
        adapters.follow(AdapterSources(named={"sql": "pvc://claim/one"}))
        async with adapters.loaded("sql"):
            before = engine.folders["sql"]
            adapters.follow(AdapterSources(named={"sql": "pvc://claim/two"}))
            await use(adapters, "sql")
            assert before.exists(), "a request that runs may need them again"
        assert not before.exists()
        adapters.follow(AdapterSources(named={"sql": "pvc://claim/one"}))
        await use(adapters, "sql")

    asyncio.run(through())
    # What was computed under one name must never serve other weights.
    assert engine.loads == [("sql", "sql"), ("sql", "sql@2"), ("sql", "sql")]


async def status_of(adapters: Adapters, headers: list[tuple[bytes, bytes]]) -> int:
    """The status of the answer to a request with ``headers``; 200 is the app's own."""
    statuses: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        raise AssertionError("nothing to read")

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await OnDemand(app, adapters=adapters)({"type": "http", "headers": headers}, receive, send)
    (status,) = statuses
    return status


@pytest.mark.parametrize(
    ("headers", "status", "loads"),
    [
        ([], 200, []),
        ([(b"x-llm-adapter", b"sql")], 200, [("sql", "sql")]),
        ([(b"x-llm-adapter", b"nope")], 404, []),
        ([(b"x-llm-adapter", b"wide")], 422, []),
    ],
)
def test_a_request_goes_on_once_its_adapter_is_loaded(
    adapters: Adapters, engine: FakeEngine, claim: Path, headers: Any, status: int, loads: Any
) -> None:
    made(claim / "sql")
    made(claim / "wide", hidden=32)

    assert asyncio.run(status_of(adapters, headers)) == status
    assert engine.loads == loads
