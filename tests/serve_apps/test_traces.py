"""One question is one trace: from the client through the gateway, a pipeline or an agent, to the model."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serve_apps.agent.agents import RunningAgents
from serve_apps.agent.config import Agents
from serve_apps.agent.ingress import build_asgi as agent_asgi
from serve_apps.common.gateway_client import GatewayClient
from serve_apps.common.middleware import ASGIApp
from serve_apps.common.secrets import InternalCredential, UpstreamKeys
from serve_apps.rag.config import RagPipelines
from serve_apps.rag.gateway_client import GatewayClient as RagGatewayClient
from serve_apps.rag.ingress import build_asgi as rag_asgi
from serve_apps.rag.pipelines import Pipelines
from tests.serve_apps.agent.fake_models import FakeModels, Says
from tests.serve_apps.agent.recorded import Recorded as RecordedAgents
from tests.serve_apps.common.collector import Collector, attributes, collector, lineage  # noqa: F401  # a fixture
from tests.serve_apps.gateway.conftest import GatewayServer, gateway  # noqa: F401  # a fixture
from tests.serve_apps.gateway.servers import PATIENCE_S, serving
from tests.serve_apps.rag.fake_gateway import FakeGateway
from tests.serve_apps.rag.in_memory import InMemoryStore
from tests.serve_apps.rag.recorded import Recorded as RecordedPipelines

TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
CHAT = "POST /v1/chat/completions"
QUESTION = "Who keeps the lighthouse of Zubrowka?"
DOCUMENT = {"id": "secret.txt", "text": "The keeper of the lighthouse of Zubrowka is called Ashgrove."}


@dataclass
class House:
    """A gateway, and what stands behind it."""

    gateway: GatewayServer
    credential: InternalCredential
    stack: ExitStack

    def serve(self, **apps: tuple[ASGIApp, str]) -> None:
        """Put applications and models, each with its task, behind the gateway."""
        models = {}
        for name, (app, task) in apps.items():
            lifespan = "on" if task in ("pipeline", "agent") else "off"
            models[name] = {"url": self.stack.enter_context(serving(app, lifespan)), "task": task}
        self.gateway.ingress.route_by({"models": models})

    def ask(self, model: str, **extra: Any) -> str:
        """Ask a question as a client that traces."""
        body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], **extra}
        answer = self.gateway.client.post("/v1/chat/completions", json=body, headers=CLIENT)
        assert answer.status_code == 200, answer.text
        return answer.text


@pytest.fixture
def house(gateway: Callable[..., GatewayServer], tmp_path: Path) -> Iterator[House]:  # noqa: F811
    server = gateway(None)
    with ExitStack() as stack:
        yield House(server, InternalCredential(tmp_path / "token"), stack)


def pipelines(house: House) -> ASGIApp:
    """The RAG app with the pipeline ``docs``."""
    observer = RecordedPipelines()
    client = RagGatewayClient(house.gateway.url, house.credential, PATIENCE_S)
    running = Pipelines(client, observer, lambda *_: InMemoryStore())
    store = {"uri": "docs.db", "timeoutS": PATIENCE_S}
    docs = {"llm": "chat", "embedder": "minilm", "embedTimeoutS": PATIENCE_S, "vectorStore": store}
    running.replace(RagPipelines.model_validate({"pipelines": {"docs": docs}}))
    return rag_asgi(running, client, observer, house.credential)


@pytest.mark.parametrize("stream", [True, False])
def test_a_pipelines_stages_lead_from_the_client_to_the_model(
    collector: Collector,  # noqa: F811
    house: House,
    stream: bool,
) -> None:
    model = FakeGateway(answer="Ashgrove keeps it [1].")
    house.serve(chat=(model, "generate"), minilm=(model, "embed"), docs=(pipelines(house), "pipeline"))
    house.gateway.client.post("/v1/rag/docs/documents", json={"documents": [DOCUMENT]}).raise_for_status()
    assert "Ashgrove" in house.ask("docs", stream=stream)
    spans = collector.trace(TRACE, 8)
    assert sorted(lineage(span, spans) for span in spans) == [
        (CHAT,),
        (CHAT, "rag embed"),
        (CHAT, "rag embed", "POST /v1/embeddings"),
        (CHAT, "rag feedback"),
        (CHAT, "rag generate"),
        (CHAT, "rag generate", CHAT),
        (CHAT, "rag keywords"),
        (CHAT, "rag search"),
    ]
    root = next(span for span in spans if lineage(span, spans) == (CHAT,))
    assert root.parent_span_id.hex() == "b7ad6b7169203331"
    assert attributes(root)["gen_ai.request.model"] == "docs"
    generated = next(span for span in spans if lineage(span, spans) == (CHAT, "rag generate", CHAT))
    assert attributes(generated)["gen_ai.usage.output_tokens"] == 9
    asked = next(each for each in reversed(model.asked) if each.path == "/v1/chat/completions")
    assert asked.headers["traceparent"] == f"00-{TRACE}-{generated.span_id.hex()}-01"
    told = b"".join(span.SerializeToString() for span in collector.spans)
    for secret in (b"Zubrowka", b"Ashgrove", b"secret.txt"):
        assert secret not in told


def test_a_stage_that_fails_is_told_and_the_answer_goes_on(
    collector: Collector,  # noqa: F811
    house: House,
) -> None:
    model = FakeGateway()
    house.serve(chat=(model, "generate"), docs=(pipelines(house), "pipeline"))  # no embedder
    house.ask("docs")
    spans = collector.trace(TRACE, 4)
    failed = {span.name for span in spans if span.status.code == 2}
    assert "rag embed" in failed
    assert CHAT not in failed


def test_an_agents_turns_and_tools_lead_from_the_client_to_the_model(
    collector: Collector,  # noqa: F811
    house: House,
    tmp_path: Path,
) -> None:
    models = FakeModels(
        script=[
            Says({"tool": "calculate", "arguments": {"expression": "6 * 7"}}),
            Says({"tool": "calculate", "arguments": {"expression": "Zubrowka"}}),
            Says({"tool": "answer"}),
            Says("It is 42."),
        ]
    )
    agents = RunningAgents(
        GatewayClient(house.gateway.url, house.credential, PATIENCE_S), UpstreamKeys(tmp_path), RecordedAgents()
    )
    helper = {"model": "chat", "tools": {"calculate": {"calculator": {}}}}
    agents.replace(Agents.model_validate({"agents": {"helper": helper}}))
    house.serve(chat=(models, "generate"), helper=(agent_asgi(agents, house.credential), "agent"))
    assert "It is 42." in house.ask("helper")
    spans = collector.trace(TRACE, 11)
    assert sorted(lineage(span, spans) for span in spans) == [
        (CHAT,),
        *[(CHAT, "chat chat")] * 4,
        *[(CHAT, "chat chat", CHAT)] * 4,
        *[(CHAT, "execute_tool calculate")] * 2,
    ]
    tools = [span for span in spans if span.name == "execute_tool calculate"]
    assert sorted(span.status.code for span in tools) == [0, 2]
    assert b"Zubrowka" not in b"".join(span.SerializeToString() for span in spans)


def test_without_a_collector_a_clients_trace_goes_on_as_it_came(house: House) -> None:
    model = FakeGateway()
    house.serve(chat=(model, "generate"))
    house.ask("chat", stream=False)
    assert model.asked[-1].headers["traceparent"] == CLIENT["traceparent"]
