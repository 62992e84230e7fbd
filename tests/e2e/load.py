"""Load from inside the cluster, through the Service that the Ingress names, and what became of every request."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.e2e.release import Release
from tests.e2e.waiting import until

PROGRAM = Path(__file__).with_name("load_generator.py")
#: Requests a second.
RATE = 5
#: Of each task, in a turn: a chat every two seconds. Where there are two cores one takes up to a second of one, engines
#: start beside it, and what a slower machine cannot keep up with is refused in the end, which is no fault.
TURN = {"generate": 1, "embed": 9}
#: The first request is out by then; an image is there, a pod starts in seconds.
START_TIMEOUT_S = 300
#: A request without an answer by then has failed. Two cores start engines meanwhile, so answers may take their time.
REQUEST_TIMEOUT_S = 120
#: It ends by itself after this, whatever happens to the tests.
LONGEST_S = 3600
#: Of a report, the failures that are shown.
SHOWN = 5


@dataclass(frozen=True)
class Outcome:
    """What became of one request."""

    at: float
    """When it was sent, in seconds since 1970."""
    model: str
    status: int
    """0 if there was no answer."""
    error: str
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether a client would have called it a failure."""
        return self.status != 200


@dataclass(frozen=True)
class Report:
    """All requests of one load."""

    outcomes: list[Outcome]
    killed: str = ""
    """What Ray's raylets say of workers that they have killed for want of memory."""

    @property
    def failures(self) -> list[Outcome]:
        """Those that failed, in the order they were sent."""
        return [outcome for outcome in self.outcomes if outcome.failed]

    @property
    def span_s(self) -> float:
        """Seconds from the first request to the last."""
        sent = [outcome.at for outcome in self.outcomes]
        return max(sent) - min(sent) if sent else 0.0

    def quantile(self, share: float) -> float:
        """The time, in seconds, within which ``share`` of the requests were answered."""
        ordered = sorted(outcome.seconds for outcome in self.outcomes)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def __str__(self) -> str:
        times = ", ".join(f"{name} {self.quantile(share) * 1000:.0f} ms" for name, share in QUANTILES.items())
        return f"{len(self.failures)} of {len(self.outcomes)} requests failed in {self.span_s:.0f} s; {times}"

    def check(self) -> None:
        """Every request was answered, as many were sent as promised, and no pod ran out of memory.

        Raises:
            AssertionError: with the first failures.
        """
        shown = [f"{one.at - self.outcomes[0].at:.1f} s {one.model}: {one.status} {one.error}" for one in self.failures]
        assert not shown, "\n".join([str(self), *shown[:SHOWN], self.killed])
        assert not self.killed, f"a pod's limit is too low for what runs in it:\n{self.killed}"
        assert len(self.outcomes) > 0.9 * RATE * self.span_s, f"the load fell behind its rate: {self}"


QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def parse(printed: str) -> Report:
    """The report of what the load generator printed."""
    outcomes = [Outcome(**json.loads(line)) for line in printed.splitlines() if line.startswith("{")]
    return Report(sorted(outcomes, key=lambda outcome: outcome.at))


@dataclass
class Load:
    """A load that runs; it has its report once it has ended."""

    pod: str
    report: Report = field(default_factory=lambda: Report([]))


@contextmanager
def load(release: Release, models: dict[str, str]) -> Iterator[Load]:
    """5 requests a second to ``models`` (with their tasks) by turns, from before the block to its end."""
    running = Load(f"load-{release.name}-{int(time.time())}")
    release.apply(_config_map(running.pod), _pod(running.pod, release, models))
    try:
        until(
            f"{running.pod} sends requests",
            lambda: _logs(release, running.pod),
            lambda printed: '"status"' in printed,
            START_TIMEOUT_S,
        )
        yield running
        # Its shell's own: the image has no kill.
        release.kubectl("exec", running.pod, "--", "sh", "-c", "kill -TERM 1")
        until(
            f"{running.pod} has all its answers",
            lambda: release.kubectl("get", "pod", running.pod, "-o=jsonpath={.status.phase}"),
            lambda phase: phase in ("Succeeded", "Failed"),
            REQUEST_TIMEOUT_S + 30,
        )
        running.report = replace(parse(_logs(release, running.pod)), killed=release.killed_for_memory())
    finally:
        release.kubectl("delete", f"pod/{running.pod}", f"configmap/{running.pod}", "--wait=false", check=False)


def _logs(release: Release, pod: str) -> str:
    return release.kubectl("logs", pod, check=False)


def _config_map(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {PROGRAM.name: PROGRAM.read_text()},
    }


def _pod(name: str, release: Release, models: dict[str, str]) -> dict[str, Any]:
    key = {"secretKeyRef": {"name": f"{release.name}-initial-key", "key": "key"}}
    plain = {
        "URL": release.service_url,
        "RATE": RATE,
        "MODELS": ",".join(f"{model}={task}" for model, task in models.items() for _ in range(TURN[task])),
        "TIMEOUT_S": REQUEST_TIMEOUT_S,
        "LONGEST_S": LONGEST_S,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "load",
                    "image": release.serve_image(),
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", f"/program/{PROGRAM.name}"],
                    "env": [
                        *({"name": variable, "value": str(value)} for variable, value in plain.items()),
                        {"name": "KEY", "valueFrom": key},
                    ],
                    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "program", "mountPath": "/program", "readOnly": True}],
                }
            ],
            "volumes": [{"name": "program", "configMap": {"name": name}}],
        },
    }
