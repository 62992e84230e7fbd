"""The gateway goes straight to a model's replicas, past HAProxy, and Serve keeps count as if it had not.

The first test fails when Ray changes what ``serve_apps/gateway/compat.py`` relies on: requests would still be answered,
through HAProxy.
"""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.conftest import Service
from tests.serve.test_autoscaling import load
from tests.serve.waiting import PATIENCE_S, until

#: Longer than it takes a replica to begin to go away, and far less than it is given then (values.yaml); 0.2 s each.
LONG_TOKENS = 60
#: Of an answer that goes on for as long as a test looks.
ENDLESS_TOKENS = 1000


def proxied(service: Service, application: str) -> int:
    """How many requests HAProxy has sent to an application since it was last started."""
    port = service.cluster.environment["RAY_SERVE_HAPROXY_METRICS_PORT"]
    scrape = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    counts = re.findall(
        rf'^haproxy_backend_http_requests_total{{proxy="http-{application}(?:-via-[^"]*)?"}} (\d+)', scrape, re.M
    )
    assert counts, f"HAProxy knows no application {application}"
    return sum(map(int, counts))


def passes(service: Service, application: str, request: Callable[[], httpx.Response]) -> int:
    """How many more requests HAProxy has sent to an application once one is answered; negative if it was started anew.

    It starts anew with every replica that comes or goes, and counts from 0 then, so tests wait for the difference.
    """
    before = proxied(service, application)
    assert request().status_code == 200
    return proxied(service, application) - before


def replicas(service: Service) -> list[int]:
    """The processes of the model's replicas that serve."""
    return service.cluster.live_pids("chat", "VLLMServer:chat")


def ongoing(service: Service) -> float:
    """How many requests Serve says the model's replicas work on."""
    families = text_string_to_metric_families(service.cluster.metrics())
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "ray_serve_replica_processing_queries" and sample.labels["deployment"] == "VLLMServer:chat"
    )


def opened(service: Service, root: str, prompt: str, tokens: int) -> AbstractContextManager[httpx.Response]:
    """A streamed answer of ``tokens`` tokens, open once it has begun; ``root`` is one of the gateway's addresses."""
    body = {"model": "chat", "stream": True, "max_tokens": tokens, "messages": [{"role": "user", "content": prompt}]}
    url = f"{root}/v1/chat/completions"
    return httpx.stream("POST", url, json=body, headers=service.headers, timeout=PATIENCE_S)


@contextmanager
def under_way(service: Service, root: str, count: int) -> Iterator[None]:
    """``count`` answers that have begun, and go on until the end of this."""
    with ExitStack() as stack:
        for number in range(count):
            answer = stack.enter_context(opened(service, root, f"{number} count", ENDLESS_TOKENS))
            assert answer.status_code == 200
        yield


def stream(service: Service, prompt: str, tokens: int, begun: threading.Event | None = None) -> bytes:
    """The whole of a streamed answer of ``tokens`` tokens."""
    with opened(service, service.root, prompt, tokens) as response:
        received = b""
        for piece in response.iter_raw():
            received += piece
            if begun is not None:
                begun.set()
    return received


@contextmanager
def streams(service: Service, count: int) -> Iterator[list[Future[bytes]]]:
    """``count`` long streams, begun; their answers."""
    begun = [threading.Event() for _ in range(count)]
    with ThreadPoolExecutor(count) as clients:
        answers = [
            clients.submit(stream, service, f"{number} count", LONG_TOKENS, begun[number]) for number in range(count)
        ]
        for event in begun:
            assert event.wait(PATIENCE_S)
        yield answers


def test_a_models_requests_pass_by_haproxy(service: Service) -> None:
    until(lambda: replicas(service), lambda seen: len(seen) == 1)

    def straight() -> bool:
        to_gateway, to_model = proxied(service, "gateway"), proxied(service, "chat")
        assert service.chat().status_code == 200
        return (proxied(service, "gateway"), proxied(service, "chat")) == (to_gateway + 1, to_model)

    until(straight, lambda seen: seen)


def test_a_pipelines_requests_go_through_haproxy(service: Service) -> None:
    until(lambda: passes(service, "rag", lambda: service.chat("docs", max_tokens=2)), lambda more: more > 0)


def test_serve_counts_what_passes_by_haproxy(service: Service) -> None:
    until(lambda: ongoing(service), lambda seen: seen == 0)
    before = proxied(service, "chat")
    with under_way(service, service.root, 2):
        until(lambda: ongoing(service), lambda seen: seen == 2)
    until(lambda: ongoing(service), lambda seen: seen == 0)
    assert proxied(service, "chat") <= before  # fewer where it was started anew


def test_a_replica_that_goes_away_finishes_what_it_has_and_gets_nothing_new(service: Service) -> None:
    until(lambda: replicas(service), lambda seen: len(seen) == 1)
    with load(service, clients=6):
        until(lambda: replicas(service), lambda seen: len(seen) == 2)
    with streams(service, 2) as answers:  # one on each, since each goes where less is going on
        statuses = set()

        def gone() -> bool:
            statuses.add(service.chat(max_tokens=1).status_code)
            return len(replicas(service)) == 1

        until(gone, lambda seen: seen)
        assert statuses == {200}
        for answer in answers:
            assert answer.result().count(b"data: ") == LONG_TOKENS + 1


def test_where_the_only_replica_has_died_its_successor_answers(service: Service) -> None:
    (died,) = until(lambda: replicas(service), lambda seen: len(seen) == 1)
    os.kill(died, signal.SIGKILL)
    answers = set()

    def answered() -> int:
        status = service.chat().status_code
        answers.add(status)
        return status

    until(answered, lambda seen: seen == 200)
    assert answers <= {200, 502, 503}, "what was under way has failed; who comes back is answered"
    # Serve counts the dead one until it looks after it; one that was on its way already may have answered, and go.
    until(lambda: replicas(service), lambda seen: len(seen) == 1 and died not in seen)
