"""The front door of the agent app."""

import uuid
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve import metrics as serve_metrics

from serve_apps.agent import run_store
from serve_apps.agent.agents import RunningAgents
from serve_apps.agent.checkpoints import RedisSaver
from serve_apps.agent.config import AgentArgs, Agents
from serve_apps.agent.ingress import build_asgi
from serve_apps.agent.progress import Ending
from serve_apps.agent.run_store import RunStore
from serve_apps.agent.runs import Runs
from serve_apps.common import logging, metrics, secrets, tracing
from serve_apps.common.config import accepted
from serve_apps.common.gateway_client import GatewayClient
from serve_apps.common.middleware import ASGIApp
from serve_apps.common.redis import connect
from serve_apps.common.secrets import InternalCredential, UpstreamKeys


class RayMetrics:
    """An ``Observer`` that exports what it is told as Ray metrics."""

    def __init__(self) -> None:
        self._turn = metrics.create(metrics.AGENT_TURN, serve_metrics)
        self._tool = metrics.create(metrics.AGENT_TOOL, serve_metrics)
        self._request = metrics.create(metrics.AGENT_REQUEST, serve_metrics)

    def turned(self, agent: str, duration_s: float) -> None:
        """Time a turn of the model."""
        self._turn.observe(duration_s, {"agent": agent})

    def called(self, agent: str, tool: str, *, failed: bool, duration_s: float) -> None:
        """Time a call of a tool."""
        outcome = "failed" if failed else "ok"
        self._tool.observe(duration_s, {"agent": agent, "tool": tool, "outcome": outcome})

    def ended(self, agent: str, ending: Ending, duration_s: float) -> None:
        """Time a whole request."""
        self._request.observe(duration_s, {"agent": agent, "ending": ending})


class AgentServer:
    """A replica: all agents, behind one guarded ASGI app."""

    def __init__(self, args: AgentArgs) -> None:
        logging.configure()
        tracing.configure()
        self._credential = InternalCredential()
        self._credential.value()  # fail now, not at the first request
        gateway = GatewayClient(args.gateway_url, self._credential, args.model_timeout_s)
        self._agents = RunningAgents(gateway, UpstreamKeys(secrets.root() / "tools"), RayMetrics())
        self._runs = self._runs_in(args.redis) if args.redis else None
        self._settings: Agents | None = None

    def _runs_in(self, url: str) -> Runs:
        redis = connect(url, secrets.root() / "redis" / "password")
        store = RunStore(redis, replica=uuid.uuid4().hex)
        return Runs(store, RedisSaver(redis, run_store.KEPT_S), self._agents)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Run the agents of ``user_config`` instead; one that is not valid changes nothing."""
        self._settings = accepted(Agents, user_config, self._settings)
        self._agents.replace(self._settings)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return build_asgi(self._agents, self._credential, self._runs)


def build_app(args: AgentArgs) -> Application:
    """The agents of ``user_config`` as one deployment, a client of the gateway."""
    return serve.deployment(name="Agent")(serve.ingress()(AgentServer)).bind(args)
