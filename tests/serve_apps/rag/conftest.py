"""A RAG app and a gateway of arithmetic models, each a real server on loopback."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_apps.common import gateway_client
from serve_apps.common.protocol import INTERNAL_HEADER, REQUEST_ID_HEADER, TENANT_HEADER
from serve_apps.common.secrets import InternalCredential
from serve_apps.rag.config import RagPipelines
from serve_apps.rag.gateway_client import GatewayClient
from serve_apps.rag.ingress import build_asgi
from serve_apps.rag.pipelines import Pipelines
from serve_apps.rag.stores import open_store
from tests.serve_apps.gateway.servers import PATIENCE_S, serving
from tests.serve_apps.rag.fake_gateway import TOKEN, FakeGateway
from tests.serve_apps.rag.in_memory import InMemoryStore
from tests.serve_apps.rag.milvus_process import PASSWORD, MilvusProcess, milvus_process
from tests.serve_apps.rag.recorded import Recorded


@pytest.fixture
def store_uri(tmp_path: Path) -> str:
    """An embedded store's file."""
    return str(tmp_path / "documents.db")


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusProcess]:
    """A Milvus server over the network, which asks for a password."""
    with milvus_process(tmp_path_factory.mktemp("milvus")) as running:
        yield running


@pytest.fixture
def milvus_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mounted Secret that opens it: its entry ``token``."""
    monkeypatch.setenv("LLM_SERVING_SECRETS", str(tmp_path))
    (tmp_path / "milvus").mkdir()
    (tmp_path / "milvus" / "token").write_text(f"root:{PASSWORD}\n")
    return tmp_path / "milvus" / "token"


@pytest.fixture
def credential(tmp_path: Path) -> InternalCredential:
    """The internal credential the fake gateway expects."""
    (tmp_path / "token").write_text(TOKEN)
    return InternalCredential(tmp_path / "token")


@pytest.fixture
def gateway() -> FakeGateway:
    """The gateway's behaviour; ``gateway_url`` serves it."""
    return FakeGateway()


@pytest.fixture
def gateway_url(gateway: FakeGateway) -> Iterator[str]:
    """Where the gateway answers."""
    with serving(gateway) as url:
        yield url


@dataclass
class RagServer:
    """A running RAG app, and a client that poses as the gateway for tenant acme."""

    client: httpx.Client
    pipelines: Pipelines
    observed: Recorded

    def send(self, *documents: dict[str, Any], pipeline: str = "docs") -> httpx.Response:
        """Send documents as JSON."""
        return self.client.post(f"/v1/rag/{pipeline}/documents", json={"documents": documents})

    def ask(self, question: str, **extra: Any) -> httpx.Response:
        """Send a query."""
        return self.client.post("/v1/rag/docs/query", json={"question": question, **extra})

    def chat(self, question: str, **extra: Any) -> httpx.Response:
        """Send a chat completion to the pipeline as a model."""
        messages = [{"role": "user", "content": question}]
        return self.client.post("/v1/chat/completions", json={"model": "docs", "messages": messages, **extra})


@pytest.fixture
def rag(
    gateway_url: str, store_uri: str, credential: InternalCredential, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., RagServer]]:
    """Starts a RAG app whose pipeline ``docs`` has the given settings: ``rag(topK=3)``.

    Its documents are in memory, or with ``stored=True`` where its settings say: an embedded store.
    """
    # On a busy machine both ends stand still for as long as that.
    monkeypatch.setattr(gateway_client, "CONNECT_TIMEOUT_S", PATIENCE_S)
    with ExitStack() as stack:

        def start(stored: bool = False, **settings: Any) -> RagServer:
            observed = Recorded()
            client = GatewayClient(gateway_url, credential, timeout_s=PATIENCE_S)
            pipelines = Pipelines(client, observed, open_store if stored else lambda *_: InMemoryStore())
            store = {"uri": store_uri, "timeoutS": PATIENCE_S}
            patient = {f"{stage}TimeoutS": PATIENCE_S for stage in ("embed", "rerank", "rewrite")}
            docs = {"llm": "chat", "embedder": "minilm", "vectorStore": store, **patient, **settings}
            pipelines.replace(RagPipelines.model_validate({"pipelines": {"docs": docs}}))
            url = stack.enter_context(serving(build_asgi(pipelines, client, observed, credential), lifespan="on"))
            headers = {INTERNAL_HEADER: TOKEN, TENANT_HEADER: "acme", REQUEST_ID_HEADER: "request-1"}
            http = stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_S))
            return RagServer(http, pipelines, observed)

        yield start
