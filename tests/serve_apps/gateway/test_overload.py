"""Three times more than there is room for: as much is answered as at the best load, and memory stays flat."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import httpx
import pytest

from serve_apps.gateway.config import Queue
from tests.serve_apps.gateway.conftest import GatewayServer, chat_at
from tests.serve_apps.gateway.servers import PATIENCE_S, Answer, Behaviour, Upstream
from tests.serve_apps.gateway.simulated_load import BODY_BYTES, Course, Load, simulate

StartUpstream = Callable[[Behaviour], tuple[Upstream, str]]
StartGateway = Callable[..., GatewayServer]

PLACES = 16
MAX_WAITING = 64
SECONDS = 150


def overloaded(times: float, *loads: Load) -> tuple[Course, int]:
    """What the replica saw of ``times`` as much as it has room for, by default of four equal tenants; the answers."""
    loads = loads or tuple(Load(tenant, PLACES * times / 4) for tenant in "abcd")
    queue = Queue(max_concurrent=PLACES, max_waiting=MAX_WAITING, timeout_s=30)
    course = simulate(queue, loads, seconds=SECONDS, seed=7)
    return course, sum(load.answers for load in loads)


def test_at_three_times_the_capacity_as_much_is_answered_as_at_the_best_load() -> None:
    goodput = {times: overloaded(times)[1] for times in (0.8, 1.0, 1.3, 3.0)}
    assert goodput[3.0] >= 0.9 * max(goodput.values())


def test_one_tenants_flood_leaves_as_much_to_be_answered() -> None:
    _, best = overloaded(1.3)
    _, answers = overloaded(3, Load("a", 2), Load("b", 2), Load("flood", PLACES * 3 - 4))
    assert answers >= 0.8 * best  # a few places are left free for a and b


def test_six_times_the_load_holds_no_more_than_three_times() -> None:
    for times in (3.0, 6.0):
        course, _ = overloaded(times)
        assert course.waiting == MAX_WAITING
        # The one that makes too many is held until it is refused.
        assert course.held_bytes <= (PLACES + MAX_WAITING + 1) * BODY_BYTES
        assert (course.left_waiting, course.left_bytes) == (0, 0)


def test_under_load_the_important_are_answered_and_the_others_shed() -> None:
    important, other = Load("a", PLACES * 0.5, priority=0), Load("b", PLACES * 2.5, priority=10)
    course, _ = overloaded(3, important, other)
    assert not important.refusals
    assert {refusal.code for refusal in other.refusals} == {"model_overloaded", "queue_timeout"}
    assert all(1 <= (refusal.retry_after_s or 0) <= 60 for refusal in other.refusals)
    assert course.waiting == MAX_WAITING


# Through a real gateway. These need the flow of issue 5 in ingress.py.


async def ok_when_released(answer: Answer) -> None:
    await answer.released()
    await answer.whole(200, b"{}", {"content-type": "application/json"})


def queued_at(url: str, **queue: Any) -> dict[str, Any]:
    return {"chat": chat_at(url)["chat"] | {"queue": {"maxConcurrent": 1, **queue}}}


def test_a_model_sees_no_more_requests_at_a_time_than_its_queue_lets_through(
    upstream: StartUpstream, gateway: StartGateway
) -> None:
    server, url = upstream(ok_when_released)
    running = gateway(queued_at(url, maxWaiting=1))
    answers: SimpleQueue[httpx.Response] = SimpleQueue()
    asking = [threading.Thread(target=lambda: answers.put(running.chat())) for _ in range(3)]
    for thread in asking:
        thread.start()
    refused = answers.get(timeout=PATIENCE_S)  # the only one answered before the model is
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "model_overloaded")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert server.asked.wait(PATIENCE_S)
    assert len(server.received) == 1
    server.release.set()
    assert [answers.get(timeout=PATIENCE_S).status_code for _ in range(2)] == [200, 200]
    for thread in asking:
        thread.join(PATIENCE_S)
    assert len(server.received) == 2


def test_who_waits_too_long_for_a_model_is_told_to_come_back(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok_when_released)
    running = gateway(queued_at(url, timeoutS=0.2))
    first = threading.Thread(target=running.chat)
    first.start()
    assert server.asked.wait(PATIENCE_S)
    late = running.chat()
    assert (late.status_code, late.json()["error"]["code"]) == (429, "queue_timeout")
    server.release.set()
    first.join(PATIENCE_S)


def test_a_client_that_leaves_the_queue_makes_room(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok_when_released)
    running = gateway(queued_at(url, maxWaiting=1))
    answers: SimpleQueue[int] = SimpleQueue()

    def ask() -> None:
        answers.put(running.chat().status_code)

    first = threading.Thread(target=ask)
    first.start()
    assert server.asked.wait(PATIENCE_S)
    with pytest.raises(httpx.ReadTimeout):  # it waits in the queue, and leaves
        httpx.post(
            f"{running.url}/v1/chat/completions",
            json={"model": "chat"},
            headers={"authorization": f"Bearer {running.key}"},
            timeout=httpx.Timeout(PATIENCE_S, read=0.3),
            trust_env=False,
        )
    running.metrics.next_tags("llm_gateway_requests")  # it has left
    second = threading.Thread(target=ask)  # refused if the one that left still waited
    second.start()
    server.release.set()
    for thread in (first, second):
        thread.join(PATIENCE_S)
    assert [answers.get(timeout=PATIENCE_S) for _ in range(2)] == [200, 200]
