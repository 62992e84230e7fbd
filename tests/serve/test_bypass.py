"""Clients of the node's own address reach the gateway past HAProxy, and Serve keeps count as if they had not.

Fails when Ray changes what ``serve_apps/gateway/compat.py`` relies on: requests would still be answered, by HAProxy.
"""

import httpx
import psutil
import ray
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.conftest import Service
from tests.serve.test_direct import passes, under_way
from tests.serve.waiting import PATIENCE_S, until


def address(service: Service) -> str:
    """Where a client outside the node would ask."""
    return f"http://{ray.util.get_node_ip_address()}:{service.config['http_options']['port']}"


def ask(service: Service, **extra: object) -> httpx.Response:
    """A chat completion from outside the node."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "count"}], **extra}
    return httpx.post(f"{address(service)}/v1/chat/completions", json=body, headers=service.headers, timeout=PATIENCE_S)


def bypasses(service: Service) -> bool:
    """Whether an answered request was none of HAProxy's."""
    return passes(service, "gateway", lambda: ask(service)) == 0


def counted(service: Service, name: str) -> float:
    """A metric of Serve's, for the gateway."""
    families = text_string_to_metric_families(service.cluster.metrics())
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if sample.labels["deployment"] == "Gateway")


def gateways(service: Service) -> list[int]:
    """The processes of the gateway's replicas."""
    return service.cluster.live_pids("gateway", "Gateway")


def test_a_client_of_the_nodes_address_passes_by_haproxy(service: Service) -> None:
    until(lambda: bypasses(service), lambda seen: seen)
    # Who asks at the loopback interface is HAProxy's.
    until(lambda: passes(service, "gateway", service.chat), lambda more: more == 1)


def test_its_answer_is_the_same(service: Service) -> None:
    until(lambda: bypasses(service), lambda seen: seen)
    straight, by_haproxy = ask(service), service.chat()
    assert straight.json()["choices"] == by_haproxy.json()["choices"]
    ignored = {"date", "x-request-id", "content-length"}
    assert {name for name in straight.headers if name not in ignored} == {
        name for name in by_haproxy.headers if name not in ignored
    }
    given = httpx.get(
        f"{address(service)}/v1/models", headers={**service.headers, "x-request-id": "mine"}, timeout=PATIENCE_S
    )
    assert given.headers.get_list("x-request-id") == ["mine"]


def test_internal_paths_are_not_there(service: Service) -> None:
    until(lambda: bypasses(service), lambda seen: seen)
    answer = httpx.get(f"{address(service)}/internal/chat/v1/models", headers=service.headers, timeout=PATIENCE_S)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_path")


def test_health_is_told_as_haproxy_does(service: Service) -> None:
    until(lambda: bypasses(service), lambda seen: seen)
    for root in (address(service), service.root):
        assert httpx.get(f"{root}/-/healthz", timeout=PATIENCE_S).text == "success"


def test_serve_counts_it(service: Service) -> None:
    until(lambda: bypasses(service), lambda seen: seen)
    handled = counted(service, "ray_serve_deployment_request_counter_total")
    with under_way(service, address(service), 2):
        until(lambda: counted(service, "ray_serve_replica_processing_queries"), lambda seen: seen == 2)
    assert [ask(service).status_code for _ in range(2)] == [200, 200]
    until(lambda: counted(service, "ray_serve_replica_processing_queries"), lambda seen: seen == 0)
    until(lambda: counted(service, "ray_serve_deployment_request_counter_total"), lambda seen: seen >= handled + 2)


def test_haproxy_answers_while_there_is_no_gateway_here(service: Service) -> None:
    until(lambda: bypasses(service), lambda seen: seen)
    (died,) = gateways(service)
    process = psutil.Process(died)
    process.kill()
    process.wait(PATIENCE_S)  # until then the kernel still connects clients to it, and resets them
    statuses = set()

    def back() -> bool:
        status = ask(service).status_code  # a refused connection would raise
        statuses.add(status)
        running = gateways(service)
        return status == 200 and bool(running) and died not in running and bypasses(service)

    until(back, lambda seen: seen)
    assert statuses <= {200, 404, 500, 502, 503}
