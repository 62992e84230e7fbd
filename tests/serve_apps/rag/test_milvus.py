"""What only a Milvus server does; test_vector_store.py has what all stores do."""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from milvus_lite.server_manager import server_manager_instance as milvus_servers
from pymilvus import DataType, MilvusClient, MilvusException
from pymilvus.client.grpc_handler import GrpcHandler

from serve_apps.common.errors import Unavailable, UpstreamFailed
from serve_apps.common.secrets import UpstreamKeys
from serve_apps.rag.config import VectorStore
from serve_apps.rag.milvus import Milvus
from serve_apps.rag.vector_store import StoredDocument
from tests.serve_apps.gateway.servers import PATIENCE_S
from tests.serve_apps.rag.conftest import RagServer
from tests.serve_apps.rag.milvus_process import PASSWORD, MilvusProcess
from tests.serve_apps.rag.written import run, unit, write


def open_store(uri: str, timeout_s: float = PATIENCE_S) -> Milvus:
    return Milvus(VectorStore(uri=uri, timeout_s=timeout_s), "docs")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server; milvus-lite speaks Milvus' protocol."""
    file = str(tmp_path / "milvus.db")
    yield str(milvus_servers.start_and_get_uri(file))
    milvus_servers.release_server(file)


@pytest.fixture
def store(server: str) -> Milvus:
    return open_store(server)


def test_an_interrupted_write_does_not_look_complete(store: Milvus, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        await write(store, "a", 0, content_hash="old")
        with monkeypatch.context() as patched:
            patched.setattr(store._collection, "delete", _broken)
            with pytest.raises(ConnectionError):
                await write(store, "a", 10, 20, content_hash="new")
        assert await store.document("a") == StoredDocument("a", 1, "old")

    run(check())


def _broken(*_: Any) -> None:
    raise ConnectionError("in the middle")


def test_documents_are_listed_beyond_one_page(store: Milvus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_apps.rag.milvus.LIST_ROWS", 3)

    async def check() -> None:
        for name in "gfedcba":
            await write(store, name, 0, 10)
        assert [stored.id for stored in await store.documents()] == list("abcdefg")

    run(check())


def test_a_collection_dropped_behind_our_back_is_made_again(store: Milvus, server: str) -> None:
    async def check() -> None:
        await write(store, "a", 0)
        MilvusClient(server).drop_collection("docs")
        with pytest.raises(Unavailable):
            await store.search(unit(0), 5)
        assert await store.search(unit(0), 5) == []
        await write(store, "a", 0)
        assert len(await store.search(unit(0), 5)) == 1

    run(check())


def test_a_store_that_is_not_there_is_unavailable_and_says_when_to_try_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed_port = taken.getsockname()[1]
    store = open_store(f"http://127.0.0.1:{closed_port}")

    async def check() -> None:
        for attempt in (
            store.search(unit(0), 1),
            store.keyword_search("a", 1),
            store.documents(),
            store.delete("a"),
            write(store, "a", 0),
        ):
            with pytest.raises(Unavailable) as raised:
                await attempt
            assert raised.value.message == "The vector store of collection 'docs' does not answer; try again later."
            assert raised.value.retry_after_s == 5

    run(check())


class Goaway(grpc.RpcError):
    """What a call hears whose connection the server is closing."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "GOAWAY received; Error code: 11; Debug Text: too_many_pings"


@pytest.mark.parametrize(("breaks", "answered"), [(1, True), (2, False)])
def test_a_read_whose_connection_breaks_is_done_once_more(
    store: Milvus, monkeypatch: pytest.MonkeyPatch, breaks: int, answered: bool
) -> None:
    register = GrpcHandler._internal_register
    broken: list[None] = []

    def breaking(*args: Any, **kwargs: Any) -> Any:
        if len(broken) < breaks:
            broken.append(None)
            raise Goaway
        return register(*args, **kwargs)

    monkeypatch.setattr(GrpcHandler, "_internal_register", breaking)

    async def check() -> None:
        with contextlib.nullcontext() if answered else pytest.raises(Unavailable):
            assert await store.search(unit(0), 1) == []
        assert len(broken) == breaks

    run(check())


def test_what_is_refused_is_not_asked_again_and_what_writes_is_done_once(
    store: Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def raising(name: str, error: Exception) -> Callable[..., Any]:
        def work(*_: Any) -> Any:
            done.append(name)
            raise error

        return work

    monkeypatch.setattr(store._collection, "search", raising("search", MilvusException(1100, "no such field")))
    monkeypatch.setattr(store._collection, "upsert", raising("upsert", Goaway()))

    async def check() -> None:
        with pytest.raises(Unavailable):
            await store.search(unit(0), 1)
        with pytest.raises(Unavailable):
            await write(store, "a", 0)
        assert done == ["search", "upsert"]

    run(check())


def test_a_store_that_hangs_is_given_up_while_the_event_loop_goes_on() -> None:
    async def check(store: Milvus) -> None:
        ticked = asyncio.ensure_future(asyncio.sleep(0, "meanwhile"))
        with pytest.raises(Unavailable):
            await store.search(unit(0), 1)
        assert ticked.done()

    # It accepts connections, and that is all it ever does.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        run(check(open_store(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.3)))


def test_calls_run_outside_the_event_loops_thread(store: Milvus, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    monkeypatch.setattr(store._collection, "delete", lambda *_: threads.append(threading.current_thread()))
    run(write(store, "a", 0))
    assert threads[0] is not threading.current_thread()


def test_a_collection_of_another_make_is_refused_by_name(store: Milvus, server: str) -> None:
    client = MilvusClient(server)
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    index = MilvusClient.prepare_index_params()
    index.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
    client.create_collection("docs", schema=schema, index_params=index)

    async def check() -> None:
        with pytest.raises(UpstreamFailed, match="'docs' was not made by this release: name another, then send"):
            await store.search(unit(0), 1)

    run(check())


def guarded(milvus: MilvusProcess, collection: str = "guarded", **more: Any) -> Milvus:
    return Milvus(VectorStore(uri=milvus.uri, credential="token", timeout_s=PATIENCE_S), collection, **more)


def test_a_server_that_asks_for_a_password_is_shown_the_mounted_one(milvus: MilvusProcess, milvus_secret: Path) -> None:
    async def check() -> None:
        calls: list[bool] = []
        store = guarded(milvus, on_call=calls.append)
        await write(store, "a", 0, 90)
        assert [hit.chunk.index for hit in await store.search(unit(80), 1)] == [1]
        assert len(await store.documents()) == 1
        assert all(calls)
        assert calls

    run(check())


def test_without_it_the_server_is_unavailable_and_no_log_has_it(
    milvus: MilvusProcess, milvus_secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    milvus_secret.write_text("root:stale-password")

    async def check() -> None:
        calls: list[bool] = []
        with caplog.at_level(logging.DEBUG), pytest.raises(Unavailable):
            await guarded(milvus, on_call=calls.append).documents()
        with pytest.raises(Unavailable):
            await open_store(milvus.uri).documents()
        assert calls == [False]
        assert "illegal connection params" in str([vars(record) for record in caplog.records])
        assert "stale-password" not in str([vars(record) for record in caplog.records])

    run(check())


def test_a_rotated_password_is_read_at_the_next_call(milvus: MilvusProcess, milvus_secret: Path) -> None:
    seconds = 0.0
    milvus_secret.write_text("root:too-new")
    store = guarded(milvus, "rotated", keys=UpstreamKeys(milvus_secret.parent, clock=lambda: seconds))

    async def refused() -> None:
        with pytest.raises(Unavailable):
            await store.documents()

    async def answered() -> None:
        assert await store.documents() == []

    run(refused())
    milvus_secret.write_text(f"root:{PASSWORD}")
    seconds += 2
    run(answered())


def test_a_pipeline_answers_from_documents_on_a_server(
    rag: Callable[..., RagServer], milvus: MilvusProcess, milvus_secret: Path
) -> None:
    server = rag(stored=True, vectorStore={"uri": milvus.uri, "credential": "token", "timeoutS": PATIENCE_S})
    sent = server.send({"id": "doors.md", "text": "The gateway is the only way in."})
    assert sent.status_code == 200, sent.text
    answer = server.ask("Which way leads in?").json()
    assert [one["document"] for one in answer["citations"]] == ["doors.md"]
    assert answer["degraded"] == []


def test_what_stands_for_milvus_says_that_it_is_well(milvus: MilvusProcess) -> None:
    assert httpx.get(f"{milvus.health_url}/healthz", timeout=PATIENCE_S).text == "OK"
    assert httpx.get(f"{milvus.health_url}/metrics", timeout=PATIENCE_S).status_code == 200
