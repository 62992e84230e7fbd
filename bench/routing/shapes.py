"""Traces of other shapes than the recorded one, made from a seed."""

import heapq
import itertools
import random
from collections.abc import Callable

from bench.routing.trace import BLOCK_TOKENS, Request, Trace

REQUESTS = 6000
REQUESTS_PER_S = 4.0
SEED = 1


def agents(seed: int = SEED, requests: int = REQUESTS) -> Trace:
    """One application: all prompts share a system prompt of 20 blocks, and conversations go on for some turns."""
    return _conversations("agents", seed, requests, systems=[1.0], system_blocks=20, turns=6, turn_blocks=2)


def applications(seed: int = SEED, requests: int = REQUESTS) -> Trace:
    """Twenty applications with system prompts of their own, the n-th a n-th as popular, and short conversations."""
    popularity = [1 / rank for rank in range(1, 21)]
    return _conversations("applications", seed, requests, systems=popularity, system_blocks=15, turns=2, turn_blocks=2)


def sessions(seed: int = SEED, requests: int = REQUESTS) -> Trace:
    """Long conversations that share nothing, thirty turns each in the mean."""
    return _conversations("sessions", seed, requests, systems=[], system_blocks=0, turns=30, turn_blocks=3)


def fresh(seed: int = SEED, requests: int = REQUESTS) -> Trace:
    """No prompt shares anything with another; sizes differ a hundredfold."""
    chance, ids = random.Random(seed), itertools.count()
    at_s, made = 0.0, []
    for _ in range(requests):
        at_s += chance.expovariate(REQUESTS_PER_S)
        blocks = tuple(itertools.islice(ids, min(250, 1 + int(chance.lognormvariate(2.3, 1)))))
        made.append(_request(chance, at_s, blocks))
    return Trace("fresh", tuple(made))


SHAPES: dict[str, Callable[[], Trace]] = {shape.__name__: shape for shape in (agents, applications, sessions, fresh)}


def _conversations(
    name: str, seed: int, requests: int, *, systems: list[float], system_blocks: int, turns: int, turn_blocks: int
) -> Trace:
    """Conversations of ``turns`` in the mean; each turn's prompt is the one before and ``turn_blocks`` more."""
    chance, ids = random.Random(seed), itertools.count()

    def new(count: int) -> tuple[int, ...]:
        return tuple(itertools.islice(ids, count))

    prompts = [new(system_blocks) for _ in systems] or [()]
    popularity = systems or [1.0]
    made: list[Request] = []
    opens_at = 0.0
    # Time, a number that breaks ties, the blocks so far, turns left.
    due: list[tuple[float, int, tuple[int, ...], int]] = []
    while len(made) < requests:
        if not due or opens_at <= due[0][0]:
            opening = chance.choices(prompts, popularity)[0] + new(1)
            heapq.heappush(due, (opens_at, next(ids), opening, chance.randint(1, 2 * turns - 1)))
            opens_at += chance.expovariate(REQUESTS_PER_S / turns)
        at_s, _, blocks, left = heapq.heappop(due)
        made.append(_request(chance, at_s, blocks))
        if left > 1:
            again_at = at_s + 5 + chance.expovariate(1 / 20)
            heapq.heappush(due, (again_at, next(ids), blocks + new(turn_blocks), left - 1))
    return Trace(name, tuple(made))


def _request(chance: random.Random, at_s: float, blocks: tuple[int, ...]) -> Request:
    return Request(at_s, len(blocks) * BLOCK_TOKENS, chance.randint(50, 600), blocks)
