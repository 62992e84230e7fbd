"""Ray's autoscaling keys, from values to replicas."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.serve.conftest import Service
from tests.serve.waiting import until


@contextmanager
def load(service: Service, clients: int, model: str = "chat") -> Iterator[list[int]]:
    """``clients`` callers that ask one thing after the other; the statuses they were answered with."""
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            status = service.chat(model, max_tokens=10).status_code
            statuses.append(status)
            if status == 429:
                over.wait(0.5)

    callers = [threading.Thread(target=ask) for _ in range(clients)]
    for caller in callers:
        caller.start()
    try:
        yield statuses
    finally:
        over.set()
        for caller in callers:
            caller.join()


def test_load_takes_a_model_from_one_replica_to_two_and_back(service: Service) -> None:
    def replicas() -> list[int]:
        return service.cluster.live_pids("chat", "VLLMServer:chat")

    (first,) = until(replicas, lambda seen: len(seen) == 1)
    with load(service, clients=6) as statuses:
        assert first in until(replicas, lambda seen: len(seen) == 2)
    assert 200 in statuses
    assert set(statuses) <= {200, 429}, "scaling must not fail a request"
    until(replicas, lambda seen: len(seen) == 1)


def test_a_request_to_a_model_at_zero_is_held_until_it_has_started(service: Service) -> None:
    def replicas() -> list[int]:
        return service.cluster.live_pids("sleeper", "VLLMServer:sleeper")

    until(replicas, lambda seen: not seen)
    answer = service.chat("sleeper")
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"].startswith("word0")
