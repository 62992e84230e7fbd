"""What is measured of a system: each measure is a load, and the figures that it gives."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.gateway.figures import crossing, percentile
from bench.gateway.load import Load, Outcome
from bench.gateway.processes import Account
from bench.gateway.systems import System, chat_body

#: Streams that are paced side by side, tokens of each, and milliseconds between two.
STREAMS, TOKENS, PACE_MS = 32, 100, 10
#: The long prompt, in bytes: 50,000 tokens, as retrieval and agents send them.
LONG_PROMPT = 220_000
#: Tokens of streams whose first one is timed: they last longer than the 50 ms for which ray.serve.llm gathers tokens,
#: since it does not wait for a stream that ends before.
PROBE_TOKENS = 8
#: Seconds between two samples of the time to the first token while the streaming ceiling is sought. The model's steps
#: are no part of it (it is the square of the golden ratio, in steps), so that the samples see every moment of a step
#: alike; at 25 ms they would see the same two moments of 10 ms again and again, in each run others.
PROBE_INTERVAL_S = 0.0261803
#: The steps of the streams beside them.
CEILING_STREAMS = (4, 8, 16, 32, 64, 128, 256, 448)
CEILING_TOKENS = 50
CEILING_FACTOR = 2.0
CEILING_TRIES = 5


@dataclass(frozen=True)
class Effort:
    """How long each measure of a round takes."""

    paced_streams_each: int = 10
    """Of 32 connections: the p99 of 320 first tokens is not one or two unlucky ones."""
    first_token_s: float = 3.0
    unary_s: float = 2.0
    long_prompts_s: float = 1.5
    ceiling_step_s: float = 3.0


QUICK = Effort(paced_streams_each=1, first_token_s=0.5, unary_s=0.5, long_prompts_s=0.5, ceiling_step_s=1.0)


class Failed(RuntimeError):
    """Requests failed where none may; the message says which and why."""


class Client:
    """The load generator, in its process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def send(self, *loads: Load) -> list[Outcome]:
        """Send loads side by side and wait for their ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(one) for one in loads]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise Failed("the load generator ended; what it said stands above")
        return [Outcome(**one) for one in json.loads(line)]


@contextmanager
def client() -> Iterator[Client]:
    """A load generator until the end of the block."""
    command = [sys.executable, "-m", "bench.gateway.client"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Client(process)
        finally:
            process.terminate()


def load_of(system: System, body: str, **options: Any) -> Load:
    """A load for ``system``."""
    path = f"{system.prefix}/v1/chat/completions"
    return Load(system.port, system.headers, body, path=path, host=system.host, **options)


def sound(system: System, outcome: Outcome) -> Outcome:
    """The outcome, if every request succeeded.

    Raises:
        Failed: one did not, or there were none.
    """
    if outcome.failed or not outcome.first_ms:
        sent = outcome.failed + len(outcome.first_ms)
        raise Failed(f"{system.name}: {outcome.failed} of {sent} requests failed: {outcome.problem}")
    return outcome


def warm_up(client: Client, system: System) -> None:
    """Some of every kind of request, unmeasured: connections, caches, code that is compiled at first use."""
    for tokens, stream in ((1, False), (20, True)):
        body = chat_body(system, tokens=tokens, stream=stream)
        sound(system, client.send(load_of(system, body, connections=STREAMS, requests=2))[0])


def paced_streams(client: Client, system: System, effort: Effort) -> dict[str, float]:
    """32 streams of 100 tokens, 10 ms apart, all begun at once: CPU for a token and the time to the first."""
    body = chat_body(system, tokens=TOKENS, stream=True, pace_ms=PACE_MS)
    account = Account(system.processes())
    load = load_of(system, body, connections=STREAMS, requests=effort.paced_streams_each)
    outcome = sound(system, client.send(load)[0])
    cpu = account.spent()
    tokens = STREAMS * effort.paced_streams_each * TOKENS
    return {
        "cpu_us_per_token": cpu["path"] / tokens * 1e6,
        "proxy_cpu_us_per_token": cpu.get("proxy", 0.0) / tokens * 1e6,
        "model_cpu_us_per_token": cpu["model"] / tokens * 1e6,
        "around_cpu_us_per_token": cpu.get("around", 0.0) / tokens * 1e6,
        "ttft_ms_p50_c32": percentile(outcome.first_ms, 50),
        "ttft_ms_p99_c32": percentile(outcome.first_ms, 99),
        "stream_s": percentile(outcome.whole_ms, 50) / 1000,
    }


def first_token(client: Client, system: System, effort: Effort) -> dict[str, float]:
    """One stream after the other: the time to the first token when nothing else is going on."""
    body = chat_body(system, tokens=PROBE_TOKENS, stream=True, pace_ms=PACE_MS)
    outcome = sound(system, client.send(load_of(system, body, seconds=effort.first_token_s))[0])
    return {"ttft_ms_p50_c1": percentile(outcome.first_ms, 50)}


def unary(client: Client, system: System, effort: Effort) -> dict[str, float]:
    """Short requests without a stream, 16 at a time, as many as there is room for."""
    body = chat_body(system, tokens=1, stream=False)
    account = Account(system.processes())
    outcome = sound(system, client.send(load_of(system, body, connections=16, seconds=effort.unary_s))[0])
    requests = len(outcome.first_ms)
    return {
        "unary_per_s": requests / outcome.seconds,
        "cpu_us_per_request": account.spent()["path"] / requests * 1e6,
        "unary_ms_p50": percentile(outcome.whole_ms, 50),
    }


def long_prompts(client: Client, system: System, effort: Effort) -> dict[str, float]:
    """Prompts of 220 KB, two at a time: CPU for each byte of the prompt, and prompts per second."""
    prompt = "word " * (LONG_PROMPT // 5)
    body = chat_body(system, tokens=1, stream=False, prompt=prompt)
    account = Account(system.processes())
    outcome = sound(system, client.send(load_of(system, body, connections=2, seconds=effort.long_prompts_s))[0])
    requests = len(outcome.first_ms)
    return {
        "prompt_cpu_ns_per_byte": account.spent()["path"] / requests / len(body) * 1e9,
        "long_prompts_per_s": requests / outcome.seconds,
    }


def ceiling(client: Client, system: System, effort: Effort, steps: Sequence[int] = CEILING_STREAMS) -> dict[str, float]:
    """The token rate at which the 99th percentile of the time to the first token is twice that of an idle system.

    Ever more streams of 50 tokens, 10 ms apart, run while short ones begin 38 times a second, whose first token is
    what is timed. A step that has failures, or that delivers less than 80 % of its tokens, is above the ceiling.

    The 99th percentile of few probes is almost their largest, and hiccups of the machine, which last for seconds, would
    decide. So the idle system and the step that seems to be above the ceiling have five tries, of which the middle one
    counts.
    """
    probe = chat_body(system, tokens=PROBE_TOKENS, stream=True, pace_ms=PACE_MS)
    probing = load_of(system, probe, connections=16, seconds=effort.ceiling_step_s, interval_s=PROBE_INTERVAL_S)
    background = chat_body(system, tokens=CEILING_TOKENS, stream=True, pace_ms=PACE_MS)
    idle_ms = median(percentile(sound(system, client.send(probing)[0]).first_ms, 99) for _ in range(CEILING_TRIES))
    limit_ms = CEILING_FACTOR * idle_ms

    def wait_ms(streams: int) -> float:
        load = load_of(system, background, connections=streams, seconds=effort.ceiling_step_s, spread_s=0.5)
        probes, streamed = client.send(probing, load)
        if probes.failed or streamed.failed or not probes.first_ms or not streamed.whole_ms:
            return 2 * limit_ms
        slow = sum(streamed.whole_ms) / len(streamed.whole_ms) > CEILING_TOKENS * PACE_MS / 0.8
        return 2 * limit_ms if slow else percentile(probes.first_ms, 99)

    waits: list[float] = []
    for streams in steps:
        waits.append(wait_ms(streams))
        if waits[-1] > limit_ms:
            waits[-1] = median([waits[-1], *(wait_ms(streams) for _ in range(CEILING_TRIES - 1))])
        if waits[-1] > limit_ms:
            break
    rates = [streams * 1000 / PACE_MS for streams in steps[: len(waits)]]
    return {"ceiling_tokens_per_s": crossing(rates, waits, limit_ms), "idle_probe_ms_p99": idle_ms}
