"""An agent app, a gateway of scripted models and servers for tools, each a real server on loopback."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_apps.agent.agents import RunningAgents
from serve_apps.agent.config import Agents
from serve_apps.agent.ingress import build_asgi
from serve_apps.common.gateway_client import Caller, GatewayClient
from serve_apps.common.protocol import INTERNAL_HEADER, REQUEST_ID_HEADER, TENANT_HEADER
from serve_apps.common.secrets import InternalCredential, UpstreamKeys
from tests.serve_apps.agent.fake_models import TOKEN, FakeModels
from tests.serve_apps.agent.recorded import Recorded
from tests.serve_apps.agent.tool_server import ToolServer
from tests.serve_apps.gateway.redis import redis_server  # noqa: F401  # a fixture
from tests.serve_apps.gateway.servers import PATIENCE_S, serving

CALLER = Caller("acme", "request-1")
#: What lets a tool reach a server of a test.
LOOPBACK = {"allowedNetworks": ["127.0.0.0/8"]}


@pytest.fixture
def credential(tmp_path: Path) -> InternalCredential:
    """The internal credential the fake gateway expects."""
    (tmp_path / "token").write_text(TOKEN)
    return InternalCredential(tmp_path / "token")


@pytest.fixture
def keys(tmp_path: Path) -> UpstreamKeys:
    """The credentials of tools: one, ``weather``."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "weather").write_text("weather-key\n")
    return UpstreamKeys(tmp_path / "tools")


@pytest.fixture
def models() -> FakeModels:
    """The models' behaviour; ``gateway_url`` serves them."""
    return FakeModels()


@pytest.fixture
def gateway_url(models: FakeModels) -> Iterator[str]:
    """Where the gateway answers."""
    with serving(models) as url:
        yield url


@pytest.fixture
def tool_server() -> ToolServer:
    """The behaviour of an HTTP server for tools; ``tool_url`` serves it."""
    return ToolServer()


@pytest.fixture
def tool_url(tool_server: ToolServer) -> Iterator[str]:
    """Where the tools' server answers."""
    with serving(tool_server) as url:
        yield url


@dataclass
class AgentServer:
    """A running agent app, and a client that poses as the gateway for tenant acme."""

    client: httpx.Client
    agents: RunningAgents
    observed: Recorded

    def chat(self, question: str, **extra: Any) -> httpx.Response:
        """Send a chat completion to the agent as a model."""
        messages = [{"role": "user", "content": question}]
        return self.client.post("/v1/chat/completions", json={"model": "helper", "messages": messages, **extra})

    def stream(self, question: str, **extra: Any) -> list[Any]:
        """The payloads of a streamed answer."""
        lines = self.chat(question, stream=True, **extra).text.split("\n\n")
        payloads = [line.removeprefix("data: ") for line in lines if line]
        return [json.loads(each) if each != "[DONE]" else each for each in payloads]


@contextmanager
def serving_agent(
    gateway_url: str, credential: InternalCredential, keys: UpstreamKeys, settings: dict[str, Any]
) -> Iterator[AgentServer]:
    """An agent app whose agent ``helper`` has the given settings; ``prices`` among them are the app's."""
    observed = Recorded()
    agents = RunningAgents(GatewayClient(gateway_url, credential, PATIENCE_S), keys, observed)
    prices = settings.pop("prices", {})
    agents.replace(Agents.model_validate({"agents": {"helper": {"model": "chat", **settings}}, "prices": prices}))
    headers = {INTERNAL_HEADER: TOKEN, TENANT_HEADER: "acme", REQUEST_ID_HEADER: "request-1"}
    with (
        serving(build_asgi(agents, credential), lifespan="on") as url,
        httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_S) as client,
    ):
        yield AgentServer(client, agents, observed)


@pytest.fixture
def agent(gateway_url: str, credential: InternalCredential, keys: UpstreamKeys) -> Iterator[Callable[..., AgentServer]]:
    """Starts an agent app whose agent ``helper`` has the given settings: ``agent(tools={…})``."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving_agent(gateway_url, credential, keys, settings))
