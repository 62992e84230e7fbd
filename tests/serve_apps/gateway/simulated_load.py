"""Tenants that ask a model through the real queue, in virtual time."""

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from serve_apps.common.errors import RateLimited
from serve_apps.gateway.admission import Memory, Queues
from serve_apps.gateway.config import Queue
from tests.serve_apps.gateway.virtual_time import run

#: Mean time a request is at the model, in seconds; exponentially distributed.
ANSWER_S = 3.0
#: What the model itself takes to its first token, in seconds.
FIRST_TOKEN_S = (0.2, 0.4)
#: What each request holds of memory, in bytes.
BODY_BYTES = 200_000


@dataclass
class Load:
    """One tenant: how much it asks for, and what it saw."""

    tenant: str
    places: float
    """Places that its requests would take up if each got one at once."""
    priority: int = 0
    share: float = 1
    first_tokens_s: list[float] = field(default_factory=list)
    answers: int = 0
    refusals: list[RateLimited] = field(default_factory=list)

    @property
    def p95_s(self) -> float:
        """Of the time to the first token."""
        return sorted(self.first_tokens_s)[int(len(self.first_tokens_s) * 0.95)]


@dataclass
class Course:
    """What the replica saw."""

    waiting: int = 0
    """The most that waited at a time."""
    held_bytes: int = 0
    """The most that was held at a time."""
    tasks: int = 0
    left_waiting: int = 0
    left_bytes: int = 0


def simulate(queue: Queue, loads: Iterable[Load], *, seconds: float, seed: int) -> Course:
    """Let ``loads`` ask for ``seconds`` of virtual time, and everybody come to an end."""
    return run(_simulate(queue, list(loads), seconds, seed))


async def _simulate(queue: Queue, loads: list[Load], seconds: float, seed: int) -> Course:
    course = Course()
    memory = Memory(10**9)

    def waiting(_model: str, count: int) -> None:
        course.waiting, course.left_waiting = max(course.waiting, count), count

    queues = Queues(waiting=waiting)
    loop = asyncio.get_running_loop()

    async def ask(load: Load, answer_s: float, first_token_s: float) -> None:
        asked_s = loop.time()
        with memory.hold() as held:
            held.grow(BODY_BYTES)
            course.held_bytes = max(course.held_bytes, memory.held_bytes)
            try:
                async with queues.turn("chat", queue, load.tenant, load.priority, load.share):
                    load.first_tokens_s.append(loop.time() - asked_s + first_token_s)
                    await asyncio.sleep(answer_s)
                    load.answers += 1
            except RateLimited as refusal:
                load.refusals.append(refusal)

    async def flow(load: Load, group: asyncio.TaskGroup) -> None:
        # A generator of its own for each tenant: what one asks does not depend on who else is there.
        chance = random.Random(f"{seed} {load.tenant}")
        while loop.time() < seconds:
            await asyncio.sleep(chance.expovariate(load.places / ANSWER_S))
            group.create_task(ask(load, chance.expovariate(1 / ANSWER_S), chance.uniform(*FIRST_TOKEN_S)))
            course.tasks = max(course.tasks, len(asyncio.all_tasks()) if chance.random() < 0.001 else 0)

    async with asyncio.TaskGroup() as group:
        for load in loads:
            group.create_task(flow(load, group))
    course.left_bytes = memory.held_bytes
    return course
