"""Documents that Ray Data brings in: the rendered RayJob on real Ray, against a real RAG app with arithmetic models."""

import asyncio
import json
import re
import shlex
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from tests.serve.processes import processes
from tests.serve.waiting import until
from tests.serve_apps.rag.conftest import RagServer, credential, gateway, gateway_url, rag, store_uri  # noqa: F401
from tests.serve_apps.rag.fake_gateway import TOKEN, FakeGateway
from tools.demo.cluster import LocalCluster
from tools.demo.rendered import REPOSITORY, helm_template, ray_service
from tools.gotools import helm

TEXTS, LINES = 1000, 2000
FILES = TEXTS + 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The claim: small files, one of lines for several to read, one that is broken, and what is no document."""
    for number in range(TEXTS):
        (tmp_path / f"{number}.txt").write_text(f"text {number}")
    filler = "x" * 1000
    lines = ({"id": f"{number}.line", "text": f"line {number}", "metadata": {"is": filler}} for number in range(LINES))
    (tmp_path / "lines.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "broken.pdf").write_bytes(b"no pdf")
    (tmp_path / "image.png").write_bytes(b"x")
    return tmp_path


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    """A release with the job."""
    values = [REPOSITORY / "values" / name for name in ("rag.yaml", "environments/local.yaml")]
    ingest = ("source=pvc://corpus/manuals", "executor=ray-data", "tenant=acme", "concurrency=2")
    return helm_template(helm(), values, [f"overrides.rag.docs.ingest.{one}" for one in ingest])


@pytest.fixture(scope="module")
def cluster(rendered: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """What stands in for the RayCluster of the job."""
    secrets = tmp_path_factory.mktemp("secrets")
    (secrets / "internal").mkdir()
    (secrets / "internal" / "token").write_text(TOKEN)
    environment = {**ray_service(rendered).environment, "LLM_SERVING_SECRETS": str(secrets)}
    with LocalCluster(environment, {}, cpus=4) as running:
        yield running


@pytest.fixture
def server(rag: Callable[..., RagServer]) -> RagServer:  # noqa: F811  # the fixture
    """Where the documents go."""
    return rag(stored=True)


Start = Callable[..., str]


@pytest.fixture
def start(cluster: LocalCluster, rendered: list[dict[str, Any]], server: RagServer, folder: Path) -> Start:
    """Starts the job's program on what stands in for its claim and its gateway; the id of the run."""
    (job,) = (one for one in rendered if one["kind"] == "RayJob")
    *program, source, _, pipeline, tenant, concurrency, workers = shlex.split(job["spec"]["entrypoint"])
    assert source == "/source/manuals"
    url = str(server.client.base_url).rstrip("/")

    def start(source: Path = folder, pipeline: str = pipeline) -> str:
        return cluster.submit(shlex.join([*program, str(source), url, pipeline, tenant, concurrency, workers]))

    return start


def end(cluster: LocalCluster, run: str) -> str:
    """A run's status and what it has printed, when it is over."""
    return until(lambda: cluster.job(run), lambda told: not told.startswith(("PENDING", "RUNNING")))


def stored(server: RagServer) -> set[str]:
    """The ids of the documents that are in."""
    return {one["id"] for one in server.client.get("/v1/rag/docs/documents").json()["documents"]}


class Hold:
    """Lets so many requests to the embedder through, and has the others wait."""

    def __init__(self, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811  # the fixture
        self._gateway = gateway
        self._respond = gateway._respond
        self._left = threading.Semaphore(0)
        monkeypatch.setattr(gateway, "_respond", self._held)

    def let(self, requests: int) -> None:
        """Let some more through."""
        self._left.release(requests)

    async def _held(self, request: Request) -> Any:
        await request.body()
        while request.url.path == "/v1/embeddings" and not self._left.acquire(blocking=False):
            if await request.is_disconnected():
                break
            await asyncio.sleep(0.02)
        return await self._respond(request)

    def embedded(self) -> Counter[str]:
        """How often each document was embedded."""
        texts = (text.split() for body in self._gateway.bodies("/v1/embeddings") for text in body["input"])
        return Counter(f"{number}.{'txt' if kind == 'text' else kind}" for kind, number in texts)


def test_killed_drivers_and_workers_lose_nothing_and_what_is_in_is_not_embedded_again(
    start: Start,
    cluster: LocalCluster,
    server: RagServer,
    gateway: FakeGateway,  # noqa: F811  # the fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold = Hold(gateway, monkeypatch)
    hold.let(20)
    first = start()
    until(lambda: (len(stored(server)), cluster.job(first)), lambda seen: seen[0] > 0)
    (driver,) = processes("python -m serve_apps.rag.job")
    driver.kill()
    until(lambda: processes("ray::MapWorker"), lambda seen: not seen)
    kept_by_first, embedded_by_first = stored(server), hold.embedded()
    assert len(kept_by_first) < TEXTS + LINES
    second = start()
    worker, _ = until(lambda: processes("ray::MapWorker"), lambda seen: len(seen) == 2)
    before = len(stored(server))  # what the first had sent may have come in after it was killed
    hold.let(20)
    until(lambda: (len(stored(server)), cluster.job(second)), lambda seen: seen[0] > before)
    worker.kill()
    hold.let(10_000)
    told = end(cluster, second)
    assert told.startswith("FAILED"), told
    assert "FAILED broken.pdf: document 'broken.pdf': is not a readable PDF" in told
    # Ray keeps ten lines for the job's message, some of which are its own.
    assert "not in: broken.pdf: document 'broken.pdf': is not a readable PDF" in told.splitlines()[-10:]
    (counted,) = re.findall(
        r"(\d+) documents in .*: (\d+) indexed, (\d+) unchanged, 1 failed; .* of (\d+) files", told
    )[-1:]
    documents, indexed, unchanged, files = map(int, counted)
    assert (documents, files) == (TEXTS + LINES + 1, FILES)
    assert unchanged >= len(kept_by_first)
    assert indexed + unchanged == TEXTS + LINES
    assert stored(server) == {f"{n}.txt" for n in range(TEXTS)} | {f"{n}.line" for n in range(LINES)}
    assert {each: hold.embedded()[each] for each in kept_by_first} == {
        each: embedded_by_first[each] for each in kept_by_first
    }


def test_what_is_wrong_ends_the_run(
    start: Start, cluster: LocalCluster, server: RagServer, folder: Path, tmp_path: Path
) -> None:
    (folder / "broken.pdf").unlink()
    nowhere, nothing, right = start(source=tmp_path / "nowhere"), start(pipeline="dosc"), start()
    assert "nowhere" in end(cluster, nowhere)
    assert "FAILED no such pipeline 'dosc'; there are docs" in end(cluster, nothing)
    for run in (nowhere, nothing):
        told = end(cluster, run)
        assert told.startswith("FAILED"), told
        assert "Traceback" not in told
    told = end(cluster, right)
    assert told.startswith("SUCCEEDED"), told
    assert f"{TEXTS + LINES} indexed, 0 unchanged, 0 failed" in told
