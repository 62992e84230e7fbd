"""What is measured, in one round after the other: throughput of both ways, and time to the first token of one."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from bench.batch.engine import ANSWERS_PER_S, SEQUENCES, TOKENS
from bench.batch.service import MODEL, RAY_DATA_LINES, Service
from bench.gateway.figures import percentile
from bench.gateway.load import Load, Outcome
from bench.gateway.measures import Client, Failed
from serve_apps.gateway.fairness import SPARE_AFTER_S

#: Of the model's rate, what others ask for beside a batch.
BUSY = 0.4
#: Who asks as much as the model makes: as many at a time as it has places, and as many that wait.
CONNECTIONS = 2 * SEQUENCES
_OVER = ("completed", "failed", "expired", "cancelled")
_POLL_S = 0.05


@dataclass(frozen=True)
class Effort:
    """Seconds that each measure of a round takes."""

    throughput_s: float = 10
    first_token_s: float = 12


QUICK = Effort(throughput_s=2, first_token_s=2)
#: Until a model counts as one that nobody else asks.
IDLE_S = SPARE_AFTER_S + 1


def round_of(client: Client, service: Service, effort: Effort) -> dict[str, float]:
    """One round's figures."""
    answers = int(effort.throughput_s * ANSWERS_PER_S) // CONNECTIONS * CONNECTIONS
    online = answers / _online(client, service, answers)
    time.sleep(IDLE_S)
    batch = answers / _batch(service, answers)
    alone = _first_token_ms(client, service, effort.first_token_s)
    with _batch_beside(service, int(10 * effort.first_token_s * ANSWERS_PER_S)):
        beside = _first_token_ms(client, service, effort.first_token_s)
    start_s, beside_ray_data, by_ray_data = _ray_data(client, service, effort)
    return {
        "online_per_s": online,
        "batch_per_s": batch,
        "throughput_ratio": batch / online,
        "ttft_p95_alone_ms": alone,
        "ttft_p95_beside_ms": beside,
        "ttft_p95_ratio": beside / alone,
        "ray_data_start_s": start_s,
        "ray_data_per_s": by_ray_data,
        "ray_data_throughput_ratio": by_ray_data / online,
        "ttft_p95_beside_ray_data_ms": beside_ray_data,
        "ray_data_ttft_p95_ratio": beside_ray_data / alone,
    }


def body(*, stream: bool = False) -> dict[str, Any]:
    """A request."""
    options = {"stream": True} if stream else {}
    return {"model": MODEL, "messages": [{"role": "user", "content": "Count."}], "max_tokens": TOKENS, **options}


def _online(client: Client, service: Service, answers: int) -> float:
    """Seconds in which clients get so many answers."""
    load = Load(service.port, service.headers, json.dumps(body()), CONNECTIONS, requests=answers // CONNECTIONS)
    return _sent(client, load).seconds


def _first_token_ms(client: Client, service: Service, seconds: float) -> float:
    """The p95 of the time to the first token, of requests that come evenly."""
    load = Load(
        service.port,
        service.headers,
        json.dumps(body(stream=True)),
        4 * SEQUENCES,
        seconds=seconds,
        interval_s=1 / (BUSY * ANSWERS_PER_S),
    )
    return percentile(_sent(client, load).first_ms, 95)


def _sent(client: Client, load: Load) -> Outcome:
    (outcome,) = client.send(load)
    if outcome.failed:
        raise Failed(f"{outcome.failed} requests failed: {outcome.problem}")
    return outcome


def _batch(service: Service, lines: int) -> float:
    """Seconds from the request for a batch until its output can be read."""
    with _api(service) as api:
        file = _upload(api, lines)
        began = time.perf_counter()
        ended = _wait(api, _start(api, file), *_OVER)
        if ended["request_counts"]["completed"] != lines:
            raise Failed(f"a batch failed: {ended}")
        return time.perf_counter() - began


def _ray_data(client: Client, service: Service, effort: Effort) -> tuple[float, float, float]:
    """Of a batch that Ray Data sends: seconds to its first answers, the p95 in ms beside it, and answers a second."""
    with _api(service) as api:
        batch = _start(api, _upload(api, RAY_DATA_LINES))
        began = time.perf_counter()
        start_s = _counted(api, batch, 0)[0] - began
        beside = _first_token_ms(client, service, effort.first_token_s)
        time.sleep(IDLE_S)
        first, counted = _counted(api, batch, _counted(api, batch, 0)[1])
        last, more = first, counted
        while last - first < effort.throughput_s:
            last, more = _counted(api, batch, more)
        _cancel(api, batch)
        return start_s, beside, (more - counted) / (last - first)


def _counted(api: httpx.Client, batch: str, before: int) -> tuple[float, int]:
    """When a batch has more answers than before, and how many."""
    while True:
        seen: dict[str, Any] = api.get(f"/v1/batches/{batch}").raise_for_status().json()
        if seen["request_counts"]["completed"] > before:
            return time.perf_counter(), seen["request_counts"]["completed"]
        if seen["status"] in _OVER:
            raise Failed(f"a batch is over: {seen}")
        time.sleep(_POLL_S)


@contextmanager
def _batch_beside(service: Service, lines: int) -> Iterator[None]:
    """A batch that runs, and is cancelled at the end."""
    with _api(service) as api:
        batch = _start(api, _upload(api, lines))
        _wait(api, batch, "in_progress", *_OVER)
        time.sleep(1)
        yield
        _cancel(api, batch)


def _cancel(api: httpx.Client, batch: str) -> None:
    """End a batch that was under way all the time."""
    if _wait(api, batch, "in_progress", *_OVER)["status"] != "in_progress":
        raise Failed("the batch was over before the measure was")
    api.post(f"/v1/batches/{batch}/cancel").raise_for_status()
    _wait(api, batch, *_OVER)


def _api(service: Service) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{service.port}", headers=service.headers, timeout=60)


def _upload(api: httpx.Client, lines: int) -> str:
    fixed = {"method": "POST", "url": "/v1/chat/completions", "body": body()}
    content = "".join(f"{json.dumps({'custom_id': str(number), **fixed})}\n" for number in range(lines))
    answer = api.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)})
    file: str = answer.raise_for_status().json()["id"]
    return file


def _start(api: httpx.Client, file: str) -> str:
    wish = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "1h"}
    batch: str = api.post("/v1/batches", json=wish).raise_for_status().json()["id"]
    return batch


def _wait(api: httpx.Client, batch: str, *statuses: str) -> dict[str, Any]:
    while True:
        seen: dict[str, Any] = api.get(f"/v1/batches/{batch}").raise_for_status().json()
        if seen["status"] in statuses:
            return seen
        time.sleep(_POLL_S)
