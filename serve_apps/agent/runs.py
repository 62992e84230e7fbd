"""Long runs: worked on in the background, their state in Redis after every step.

A replica that is killed leaves its runs to the others, which go on at the last step. The step that was being done is
done again, so a tool may be called twice. What a model or the gateway refuses for the moment is tried again later.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from redis.exceptions import RedisError

from serve_apps.agent import flow
from serve_apps.agent.agents import RunningAgents
from serve_apps.agent.answer import Answer
from serve_apps.agent.checkpoints import RedisSaver
from serve_apps.agent.conversation import Asked
from serve_apps.agent.run_store import RunStore
from serve_apps.common import tracing
from serve_apps.common.errors import NotFound, RateLimited, ServingError, Unavailable
from serve_apps.common.gateway_client import Caller
from serve_apps.common.logging import request_id
from serve_apps.common.redis import LEASE_S, end

#: Runs a replica works on at a time.
MAX_RUNS = 32
#: How often a run is taken up: one that kills every replica, or whose model is away, must end some time.
MAX_ATTEMPTS = 8
#: Between two looks for runs that nobody works on, in seconds.
LOOK_S = LEASE_S / 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a replica tells that it lives, and looks for the runs of those that do not; in seconds."""

    renew_s: float = LEASE_S / 3
    look_s: float = LOOK_S


class Runs:
    """The runs of one replica, and its eye on those of others."""

    def __init__(
        self,
        store: RunStore,
        saver: RedisSaver,
        agents: RunningAgents,
        pace: Pace | None = None,
    ) -> None:
        self._store = store
        self._saver = saver
        self._agents = agents
        self._pace = pace or Pace()
        self._working: dict[str, asyncio.Task[None]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def start(self, agent: str, asked: Asked, caller: Caller) -> dict[str, Any]:
        """Begin a run; returns how it is shown.

        Raises:
            NotFound: no such agent.
            RateLimited: this replica has enough to do.
            Unavailable: Redis cannot be reached.
        """
        self._agents.find(agent)
        if len(self._working) >= MAX_RUNS:
            raise RateLimited(
                f"{MAX_RUNS} runs are being worked on here; try again.", code="too_many_runs", retry_after_s=5
            )
        run = f"run_{uuid.uuid4().hex}"
        record = {
            "agent": agent,
            "tenant": caller.tenant,
            "request_id": caller.request_id,
            "asked": orjson.dumps(asdict(asked)).decode(),
            "status": "in_progress",
            "created": str(int(time.time())),
        }
        with _reachable():
            await self._store.add(run, record)
        self._work_on(run)
        return _shown(run, record, [])

    async def show(self, agent: str, run: str, tenant: str) -> dict[str, Any]:
        """How a run is going, or how it ended.

        Raises:
            NotFound: the tenant has no such run of this agent.
            Unavailable: Redis cannot be reached.
        """
        record = await self._find(agent, run, tenant)
        with _reachable():
            kept = await self._saver.aget_tuple(_thread(run))
        values = kept.checkpoint["channel_values"] if kept is not None else {}
        return _shown(run, record, values.get("steps", []))

    async def remove(self, agent: str, run: str, tenant: str) -> None:
        """End a run if it is not over, and forget it.

        Raises:
            NotFound: the tenant has no such run of this agent.
            Unavailable: Redis cannot be reached.
        """
        await self._find(agent, run, tenant)
        with _reachable():
            await self._store.remove(run)
            await self._saver.adelete_thread(run)
        if run in self._working:
            self._working[run].cancel()

    def look_after(self) -> None:
        """Take up the runs that nobody works on, from now on."""
        self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Leave all runs to the other replicas."""
        await end([*self._working.values(), *([self._looking] if self._looking else [])])
        await self._store.close()

    async def _find(self, agent: str, run: str, tenant: str) -> dict[str, str]:
        with _reachable():
            record = await self._store.record(run)
        # Another tenant's is not there, either: ids must tell nobody anything.
        if record.get("agent") != agent or record.get("tenant") != tenant:
            raise NotFound(f"no such run {run[:80]!r} of agent {agent!r}", code="run_not_found")
        return record

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._pace.look_s)
            if not self._agents.names:
                continue  # no settings yet: every run's agent would be unknown
            try:
                for run in await self._store.active():
                    if len(self._working) < MAX_RUNS and run not in self._working and await self._store.take(run):
                        logger.warning("a run is taken up", extra={"run": run})
                        self._work_on(run)
            except RedisError as error:
                logger.error("runs cannot be looked after", extra={"problem": str(error)})

    def _work_on(self, run: str) -> None:
        task = asyncio.create_task(self._work(run))
        self._working[run] = task
        task.add_done_callback(lambda _: self._working.pop(run, None))

    async def _work(self, run: str) -> None:
        """Work on a run that is this replica's, until it is over or somebody else's."""
        working = asyncio.create_task(self._answer(run))
        try:
            while not working.done():
                await asyncio.wait([working], timeout=self._pace.renew_s)
                if not working.done() and not await self._store.renew(run):
                    logger.warning("a run was taken away", extra={"run": run})
                    return
            await working
        except RedisError as error:
            logger.error("a run is left for later", extra={"run": run, "problem": str(error)})
        finally:
            await end([working])
            if not working.cancelled():
                working.exception()  # seen
            with contextlib.suppress(RedisError):
                await self._store.release(run)

    async def _answer(self, run: str) -> None:
        record = await self._store.record(run)
        if not record:
            await self._store.remove(run)  # its time is over
            return
        request_id.set(record["request_id"])
        attempts = await self._store.attempt(run)
        try:
            if attempts > MAX_ATTEMPTS:
                raise ServingError(f"The run was taken up {MAX_ATTEMPTS} times and did not come to its end.")
            response = await self._response(run, record)
            ended = {"status": "completed", "response": orjson.dumps(response).decode()}
        except ServingError as error:
            if error.status in (429, 502, 503, 504) and attempts < MAX_ATTEMPTS:
                logger.warning("a run waits", extra={"run": run, "problem": error.message})
                await asyncio.sleep(min(2.0**attempts, 60) * self._pace.look_s / LOOK_S)
                return
            ended = {"status": "failed", "error": error.encoded().decode()}
        except RedisError:
            raise
        except Exception:
            logger.exception("a run failed", extra={"run": run})
            ended = {
                "status": "failed",
                "error": ServingError("Internal error; the server's log has it.").encoded().decode(),
            }
        await self._store.finish(run, ended)

    async def _response(self, run: str, record: dict[str, str]) -> dict[str, Any]:
        agent = self._agents.find(record["agent"])
        asked = Asked(**orjson.loads(record["asked"]))
        listed = await agent.toolbox.functions()
        caller = Caller(record["tenant"], record["request_id"])
        work = agent.work(listed.functions, caller, asked.sampling)
        kept = await self._saver.aget_tuple(_thread(run))
        begin = None if kept is not None else flow.beginning(work, asked.messages, asked.instruction)
        answer = Answer(agent.name, agent.settings.limits, listed.missing, include_steps=True)
        began = time.monotonic()
        with tracing.span("run", {"gen_ai.agent.name": agent.name}):
            async with contextlib.aclosing(flow.run(agent.flow(self._saver), work, begin, thread=run)) as events:
                response = await answer.chat(events)
        agent.observer.ended(agent.name, response["end_reason"], time.monotonic() - began)
        return response


@contextlib.contextmanager
def _reachable() -> Any:
    try:
        yield
    except RedisError as error:
        logger.error("Redis cannot be reached", extra={"problem": str(error)})
        raise Unavailable("Runs cannot be kept at the moment; try again.", retry_after_s=5) from error


def _thread(run: str) -> Any:
    return {"configurable": {"thread_id": run}}


def _shown(run: str, record: dict[str, str], steps: list[Any]) -> dict[str, Any]:
    return {
        "id": run,
        "object": "agent.run",
        "agent": record["agent"],
        "status": record["status"],
        "created": int(record["created"]),
        "steps": steps,
        "response": orjson.loads(record["response"]) if "response" in record else None,
        "error": orjson.loads(record["error"])["error"] if "error" in record else None,
    }
