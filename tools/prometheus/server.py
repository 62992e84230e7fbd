"""A Prometheus that runs in a folder, and what it answers."""

import math
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tools.gotools import binary
from tools.ports import free_port

#: To read its configuration and be ready; a busy machine takes its time.
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20


class DidNotStart(RuntimeError):
    """Prometheus ended or did not get ready; the message has the end of its log."""


@dataclass(frozen=True)
class Line:
    """One series of an answer over a window."""

    labels: dict[str, str]
    points: list[tuple[float, float]]
    """Times, in seconds since 1970, and values; not those without a number."""


@dataclass(frozen=True)
class Prometheus:
    """Its API: https://prometheus.io/docs/prometheus/latest/querying/api/."""

    client: httpx.Client

    def ask(self, path: str, **parameters: str) -> Any:
        """What the API has under ``data``.

        Raises:
            ValueError: It refuses; the message is its own.
        """
        answer = self.client.post(f"/api/v1/{path}", data=parameters)
        told = answer.json()
        if told["status"] != "success":
            raise ValueError(f"{parameters.get('query', path)}: {told['error']}")
        return told["data"]

    def values(self, expression: str) -> list[float]:
        """The values of an expression now; what is not a number is none."""
        told = self.ask("query", query=expression)
        samples = [told["result"]] if told["resultType"] == "scalar" else [one["value"] for one in told["result"]]
        return [value for _, text in samples if not math.isnan(value := float(text))]

    def lines(self, expression: str, start_s: float, end_s: float, step_s: float) -> list[Line]:
        """The series of an expression over a window."""
        told = self.ask("query_range", query=expression, start=str(start_s), end=str(end_s), step=str(step_s))
        return [
            Line(
                one["metric"],
                [(time_s, value) for time_s, text in one["values"] if not math.isnan(value := float(text))],
            )
            for one in told["result"]
        ]

    def has_series(self, selector: str) -> bool:
        """Whether there is a series that a selector selects."""
        return bool(self.ask("series", **{"match[]": selector, "limit": "1"}))

    def parsed(self, expression: str) -> dict[str, Any]:
        """The expression's tree, as Prometheus reads it."""
        tree: dict[str, Any] = self.ask("parse_query", query=expression)
        return tree

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes: ``scrapePool``, ``labels``, ``health``, ``lastError``."""
        answer = self.client.get("/api/v1/targets", params={"state": "active"}).json()
        targets: list[dict[str, Any]] = answer["data"]["activeTargets"]
        return targets

    def pools(self) -> list[str]:
        """Its scrape configs that are in force, by their jobs' names."""
        pools: list[str] = self.client.get("/api/v1/scrape_pools").json()["data"]["scrapePools"]
        return pools

    def rules(self) -> list[dict[str, Any]]:
        """The rules it evaluates: ``name``, ``health``, ``lastError``, ``state``."""
        groups = self.client.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


@contextmanager
def prometheus(
    folder: Path, scrape_configs: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]] = (), interval: str = "5s"
) -> Iterator[Prometheus]:
    """Run one that scrapes, and evaluates rule ``groups`` every ``interval``; its data goes into ``folder``.

    Raises:
        DidNotStart: It refuses its configuration, or is not ready in time.
    """
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": [*groups]}))
    config = {
        "global": {"evaluation_interval": interval},
        "rule_files": [str(rules)],
        "scrape_configs": [*scrape_configs],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    address = f"127.0.0.1:{free_port()}"
    command = [
        str(binary("prometheus")),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--scrape.discovery-reload-interval=1s",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=60, trust_env=False) as client:
            _wait_until_ready(client, process, folder / "prometheus.log")
            yield Prometheus(client)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if client.get("/-/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise DidNotStart(log.read_text()[-2000:])
