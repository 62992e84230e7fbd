"""The HTTP routes of the agent app."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve_apps.agent import conversation, flow
from serve_apps.agent.agents import RunningAgent, RunningAgents
from serve_apps.agent.answer import Answer
from serve_apps.agent.conversation import Asked
from serve_apps.agent.runs import Runs
from serve_apps.agent.work import Ended, Event, Work
from serve_apps.common import responses
from serve_apps.common.disconnect import CancelOnDisconnect
from serve_apps.common.errors import InvalidRequest, NotFound
from serve_apps.common.gateway_client import caller_of
from serve_apps.common.middleware import ASGIApp, Guard
from serve_apps.common.protocol import DEGRADED_HEADER
from serve_apps.common.requests import json_object
from serve_apps.common.secrets import InternalCredential


def build_asgi(agents: RunningAgents, credential: InternalCredential, runs: Runs | None = None) -> ASGIApp:
    """The guarded ASGI app. ``agents`` may be replaced while it runs; without ``runs`` there are none."""
    routes = Routes(agents, runs)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None, None]:
        if runs is not None:
            runs.look_after()
        yield
        if runs is not None:
            await runs.close()
        await agents.gateway.close()

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
            Route("/v1/agents/{agent}/runs", routes.start_run, methods=["POST"]),
            Route("/v1/agents/{agent}/runs/{run}", routes.run, methods=["GET", "DELETE"]),
        ],
        lifespan=lifespan,
        exception_handlers=responses.HANDLERS,
    )
    app.router.redirect_slashes = False  # a redirect would leave the gateway's route
    return Guard(CancelOnDisconnect(app), credential=credential, allows=_allows)


def _allows(method: str, path: str) -> bool:
    return path.startswith("/v1/agents/") or (method == "POST" and path == "/v1/chat/completions")


class Routes:
    """One method per route."""

    def __init__(self, agents: RunningAgents, runs: Runs | None) -> None:
        self._agents = agents
        self._given_runs = runs

    async def chat(self, request: Request) -> Response:
        """A conversation, answered by an agent that poses as a model."""
        body = await json_object(request)
        if not isinstance(body.get("model"), str):
            raise InvalidRequest("model: required, the agent's name", param="model")
        agent = self._agents.find(body["model"])
        asked = conversation.read(body, agent.settings)
        listed = await agent.toolbox.functions()
        work = agent.work(listed.functions, caller_of(request.headers), asked.sampling)
        answer = Answer(agent.name, agent.settings.limits, listed.missing, asked.include_steps, asked.include_usage)
        flags = {DEGRADED_HEADER: ",".join(listed.missing)} if listed.missing else {}
        events = self._work(agent, work, asked)
        if not asked.stream:
            async with aclosing(events):
                return responses.json(await answer.chat(events), headers=flags)
        return await responses.streamed(answer.chat_events(events), events, flags)

    async def start_run(self, request: Request) -> Response:
        """A conversation, to be answered in the background."""
        agent = self._agents.find(request.path_params["agent"])
        asked = conversation.read(await json_object(request), agent.settings)
        if asked.stream:
            raise InvalidRequest("stream: a run is not streamed; leave it out", param="stream")
        return responses.json(await self._runs.start(agent.name, asked, caller_of(request.headers)), 202)

    async def run(self, request: Request) -> Response:
        """GET: how a run is going. DELETE: it ends and is forgotten."""
        agent, run, caller = request.path_params["agent"], request.path_params["run"], caller_of(request.headers)
        if request.method == "GET":
            return responses.json(await self._runs.show(agent, run, caller.tenant))
        await self._runs.remove(agent, run, caller.tenant)
        return responses.json({"id": run, "object": "agent.run", "deleted": True})

    @property
    def _runs(self) -> Runs:
        if self._given_runs is None:
            raise NotFound("Runs keep their state in Redis, and there is none here; set redis.", code="no_runs")
        return self._given_runs

    async def _work(self, agent: RunningAgent, work: Work, asked: Asked) -> AsyncGenerator[Event, None]:
        began = time.monotonic()
        events = flow.run(agent.flow(), work, flow.beginning(work, asked.messages, asked.instruction))
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Ended) and (ending := event.progress["ending"]):
                    self._agents.observer.ended(agent.name, ending, time.monotonic() - began)
                yield event
