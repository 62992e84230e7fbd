"""The agents that run now; a new configuration replaces them whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from serve_apps.agent import graph, loop
from serve_apps.agent.config import Agent, Agents
from serve_apps.agent.flow import Flow
from serve_apps.agent.observation import Observer
from serve_apps.agent.toolbox import Toolbox
from serve_apps.agent.tools import Function
from serve_apps.agent.work import Work
from serve_apps.common.errors import NotFound
from serve_apps.common.gateway_client import Caller, GatewayClient
from serve_apps.common.prices import Price
from serve_apps.common.secrets import UpstreamKeys


@dataclass(frozen=True, slots=True)
class RunningAgent:
    """An agent and its tools."""

    name: str
    settings: Agent
    toolbox: Toolbox
    gateway: GatewayClient
    observer: Observer
    prices: Mapping[str, Price]
    _flows: dict[BaseCheckpointSaver[int] | None, Flow] = field(default_factory=dict)
    """What was built of it: that takes 10 ms or so."""

    def work(self, functions: Mapping[str, Function], caller: Caller, sampling: Mapping[str, Any]) -> Work:
        """The surroundings of one request."""
        return Work(self.name, self.settings, functions, self.gateway, caller, self.observer, sampling, self.prices)

    def flow(self, saver: BaseCheckpointSaver[int] | None = None) -> Flow:
        """How it works; with a saver, its state is kept after every step."""
        if saver not in self._flows:
            planned = self.settings.graph
            self._flows[saver] = graph.build(planned, saver) if planned else loop.build(self.settings.limits, saver)
        return self._flows[saver]


class RunningAgents:
    """The running agents, by name."""

    def __init__(self, gateway: GatewayClient, keys: UpstreamKeys, observer: Observer) -> None:
        self.gateway = gateway
        self.observer = observer
        self._keys = keys
        self._running: dict[str, RunningAgent] = {}

    def replace(self, wanted: Agents) -> None:
        """Run ``wanted`` instead; one whose settings stay keeps what its servers listed. Requests under way go on."""
        self._running = {name: self._start(name, settings, wanted.prices) for name, settings in wanted.agents.items()}

    @property
    def names(self) -> list[str]:
        """The agents there are."""
        return sorted(self._running)

    def find(self, name: str) -> RunningAgent:
        """The agent called ``name``.

        Raises:
            NotFound: there is none; names those there are.
        """
        running = self._running
        if name not in running:
            there = ", ".join(self.names) or "none"
            raise NotFound(f"no such agent {name!r}; there are {there}", code="agent_not_found", param="model")
        return running[name]

    def _start(self, name: str, settings: Agent, prices: Mapping[str, Price]) -> RunningAgent:
        before = self._running.get(name)
        if before is not None and (before.settings, before.prices) == (settings, prices):
            return before
        toolbox = Toolbox(settings, self.gateway, self._keys)
        return RunningAgent(name, settings, toolbox, self.gateway, self.observer, prices)
