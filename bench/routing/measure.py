"""What is measured: policies on one trace, then the gateway's own in other settings and on other shapes."""

import os
import platform
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.gateway.figures import percentile
from bench.routing.policies import COMPARED, MODEL, Ours, Policy, Replica
from bench.routing.replay import Outcome, Setting, bound, replay
from bench.routing.shapes import SHAPES
from bench.routing.trace import Trace
from serve_apps.gateway.affinity import Affinity, beginnings
from serve_apps.gateway.config import GatewayArgs

MAX_ENTRIES: int = GatewayArgs.model_fields["max_prefix_entries"].default
OURS = "prefix affinity"
USUAL = Setting()
#: Name of the setting, the setting, remembered entries.
SENSITIVITY: tuple[tuple[str, Setting, int], ...] = (
    ("2 replicas", Setting(replicas=2), MAX_ENTRIES),
    ("4 replicas", Setting(replicas=4), MAX_ENTRIES),
    ("16 replicas", Setting(replicas=16), MAX_ENTRIES),
    ("2 gateways with memories of their own", Setting(gateways=2), MAX_ENTRIES),
    ("4 gateways with memories of their own", Setting(gateways=4), MAX_ENTRIES),
    ("a replica replaced in the middle", Setting(replaced=True), MAX_ENTRIES),
    ("replicas half as fast", Setting(prefill_tokens_per_s=7_500, token_s=0.04), MAX_ENTRIES),
    ("replicas twice as fast", Setting(prefill_tokens_per_s=30_000, token_s=0.01), MAX_ENTRIES),
    ("10,000 entries", USUAL, 10_000),
    ("1,000 entries", USUAL, 1_000),
    ("0 entries: only load counts", USUAL, 0),
)
#: The prompt that decisions are timed with apart from the trace, how often, and among how many.
TIMED_BYTES, TIMED_DECISIONS, TIMED_PROMPTS = 220_000, 4000, 50


def measure(trace: Trace, command: str) -> dict[str, Any]:
    """All results, as they go into the JSON file."""
    best = bound(trace, USUAL)
    policies = {name: replay(trace, policy, USUAL) for name, policy in COMPARED.items()}
    policies[OURS] = replay(trace, _ours(MAX_ENTRIES), USUAL)
    ours = policies[OURS]
    return {
        "hit_ratio": _rounded(ours.hit_ratio),
        "hit_ratio_bound": _rounded(best),
        "hit_ratio_of_bound": _rounded(_of_bound(ours, best)),
        "imbalance": _rounded(ours.imbalance),
        "imbalance_requests": _rounded(ours.imbalance_requests),
        "imbalance_tokens": _rounded(ours.imbalance_tokens),
        "decision_us": _decision_us(ours),
        "policies": {name: _row(outcome, best) for name, outcome in policies.items()},
        "sensitivity": {
            name: _row(replay(trace, _ours(entries), setting), bound(trace, setting))
            for name, setting, entries in SENSITIVITY
        },
        "shapes": {name: _shape(shape()) for name, shape in SHAPES.items()},
        "trace": {
            "name": trace.name,
            "sha256": trace.sha256,
            "requests": len(trace.requests),
            "blocks": trace.blocks,
            "seconds": _rounded(trace.requests[-1].at_s - trace.requests[0].at_s),
        },
        "model": {
            "replicas": USUAL.replicas,
            "cache_blocks": USUAL.cache_blocks,
            "prefill_tokens_per_s": USUAL.prefill_tokens_per_s,
            "token_s": USUAL.token_s,
            "max_entries": MAX_ENTRIES,
        },
        "command": command,
        "machine": _machine(),
        "versions": {"python": platform.python_version(), "commit": _commit()},
    }


def _ours(entries: int) -> Callable[[], Policy]:
    return lambda: Ours(entries)


def _shape(trace: Trace) -> dict[str, Any]:
    best = bound(trace, USUAL)
    rows = {name: _row(replay(trace, policy, USUAL), best) for name, policy in COMPARED.items()}
    return rows | {
        OURS: _row(replay(trace, _ours(MAX_ENTRIES), USUAL), best),
        f"{OURS}, 2 gateways": _row(replay(trace, _ours(MAX_ENTRIES), Setting(gateways=2)), best),
    }


def _row(outcome: Outcome, best: float) -> dict[str, float]:
    return {
        "hit_ratio": _rounded(outcome.hit_ratio),
        "hit_ratio_of_bound": _rounded(_of_bound(outcome, best)),
        "imbalance_requests": _rounded(outcome.imbalance_requests),
        "imbalance_tokens": _rounded(outcome.imbalance_tokens),
        "ttft_p50_s": _rounded(outcome.ttft_p50_s),
        "ttft_p95_s": _rounded(outcome.ttft_p95_s),
    }


def _of_bound(outcome: Outcome, best: float) -> float:
    """Where nothing can be hit, all of it was."""
    return outcome.hit_ratio / best if best else 1.0


def _decision_us(ours: Outcome) -> dict[str, Any]:
    gateways = [policy for policy in ours.policies if isinstance(policy, Ours)]
    clock = [us for gateway in gateways for us in gateway.decisions_us]
    cpu = [us for gateway in gateways for us in gateway.decisions_cpu_us]
    return {
        "p50": round(percentile(clock, 50), 1),
        "p99": round(percentile(clock, 99), 1),
        "cpu_p50": round(percentile(cpu, 50), 1),
        "cpu_p99": round(percentile(cpu, 99), 1),
        "prompt_220_kb": _timed(),
    }


def _timed() -> dict[str, float]:
    """CPU time of the two parts of a decision about a long prompt, half of them known, with the memory full."""
    chance = random.Random(1)
    affinity = Affinity(MAX_ENTRIES)
    replicas = [Replica(f"replica-{number}") for number in range(USUAL.replicas)]
    known = [chance.randbytes(TIMED_BYTES) for _ in range(TIMED_PROMPTS)]
    hashing, choice = [], []
    for number in range(2 * TIMED_DECISIONS):
        prompt = known[number % TIMED_PROMPTS]
        if number % 2:
            prompt = chance.randbytes(16) + prompt[16:]
        begin = time.thread_time_ns()
        keys = beginnings(prompt)
        hashed = time.thread_time_ns()
        chosen = affinity.choose_by_keys(MODEL, keys, len(prompt), None, replicas)
        end = time.thread_time_ns()
        affinity.done(MODEL, chosen)
        hashing.append((hashed - begin) / 1000)
        choice.append((end - hashed) / 1000)
    # The first half fills the memory.
    hashing, choice = hashing[TIMED_DECISIONS:], choice[TIMED_DECISIONS:]
    return {
        "hashing_p50": round(percentile(hashing, 50), 1),
        "hashing_p99": round(percentile(hashing, 99), 1),
        "choice_p50": round(percentile(choice, 50), 1),
        "choice_p99": round(percentile(choice, 99), 1),
    }


def _rounded(value: float) -> float:
    return round(value, 4)


def _machine() -> str:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}"


def _commit() -> str:
    shown = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return shown.stdout.strip() or "unknown"
