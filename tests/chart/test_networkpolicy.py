"""networkpolicy.yaml: who may reach which port, asked of every rendered policy."""

from typing import Any

import pytest

from tests.chart.network import End, allowed
from tests.chart.pods import pods
from tests.chart.render import CHAT, DOCS, EMBEDDER, of_kind, render_chart

NAMESPACE = "ray-system"

#: Ports of a Ray pod, by what listens there; facts are from a socket list of a running node.
GATEWAY, METRICS = 8000, 8080
CLOSED = {
    "HAProxy's statistics": 8404,
    "HAProxy's exporter": 9101,
    "a replica": 30000,
    "another replica": 31000,
    "the fallback proxy": 8500,
    "Ray's node agent": 52365,
    "a worker process": 10002,
    "an object manager": 8076,
}
HEAD = {"the GCS": 6379, "the client": 10001}
DASHBOARD = 8265
HEAD_METRICS = (44217, 44227)
REDIS = 6379
MILVUS, MILVUS_METRICS = 19530, 9091

INGRESS = End("10.2.0.1", "ingress-nginx", {"app.kubernetes.io/name": "ingress-nginx"})
OPERATOR = End("10.2.0.2", "kuberay-operator", {"app.kubernetes.io/name": "kuberay-operator"})
PROMETHEUS = End("10.2.0.3", "monitoring", {"app.kubernetes.io/name": "prometheus"})
NEIGHBOUR = End("10.2.0.4", NAMESPACE, {"app": "notebook"})
STRANGER = End("10.2.0.5", "shop", {"app": "shop"})
DEVELOPER = End("10.2.0.6", "tools", {"app": "bastion"})
INTERNET = End("203.0.113.9")
BALANCER = End("10.0.3.4")
EVERYONE = {
    "ingress": INGRESS,
    "operator": OPERATOR,
    "prometheus": PROMETHEUS,
    "neighbour": NEIGHBOUR,
    "stranger": STRANGER,
    "developer": DEVELOPER,
    "internet": INTERNET,
    "balancer": BALANCER,
}
CLIENTS: list[dict[str, Any]] = [
    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}},
    {"ipBlock": {"cidr": "10.0.0.0/22"}},
]
DEVELOPERS: list[dict[str, Any]] = [
    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tools"}}},
]
VALUES: dict[str, Any] = {
    "models": {"chat": CHAT, "embedder": EMBEDDER},
    "rag": {"docs": {**DOCS, "ingest": {"source": "s3://bucket/manuals"}}},
    "redis": {"enabled": True},
    "milvus": {"enabled": True},
    "networkPolicy": {"clients": CLIENTS, "dashboardClients": DEVELOPERS},
}


class Network:
    """A release, and whether its policies let somebody in."""

    def __init__(self, values: dict[str, Any]) -> None:
        objects = render_chart(values, namespace=NAMESPACE)
        self.policies = [
            {**one, "metadata": {"namespace": NAMESPACE, **one["metadata"]}}
            for one in of_kind(objects, "NetworkPolicy").values()
        ]
        self.ends = {
            name: End(f"10.3.0.{number}", NAMESPACE, pod["metadata"]["labels"])
            for number, (name, pod) in enumerate(pods(objects).items(), start=1)
        }

    def may(self, source: End | str, destination: End | str, port: int, protocol: str = "TCP") -> bool:
        """Whether it may; the release's own pods go by their names."""
        return allowed(self.policies, self._end(source), self._end(destination), port, protocol)

    def _end(self, end: End | str) -> End:
        return self.ends[end] if isinstance(end, str) else end

    def reach(self, destination: str, port: int) -> set[str]:
        """Who of `EVERYONE` may."""
        return {name for name, end in EVERYONE.items() if self.may(end, destination, port)}


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(VALUES)


@pytest.mark.parametrize("pod", ["head", "cpu", "l4"])
def test_the_gateways_port_is_for_its_clients(network: Network, pod: str) -> None:
    assert network.reach(pod, GATEWAY) == {"ingress", "balancer"}


@pytest.mark.parametrize("pod", ["head", "cpu", "l4"])
def test_metrics_are_for_prometheus(network: Network, pod: str) -> None:
    assert network.reach(pod, METRICS) == {"prometheus"}


def test_the_heads_own_metrics_are_the_heads_only(network: Network) -> None:
    for port in HEAD_METRICS:
        assert network.reach("head", port) == {"prometheus"}
        assert network.reach("cpu", port) == set()


def test_the_dashboard_is_for_the_operator_and_those_that_are_named(network: Network) -> None:
    assert network.reach("head", DASHBOARD) == {"operator", "developer"}
    assert network.reach("cpu", DASHBOARD) == set()


@pytest.mark.parametrize("port", (CLOSED | HEAD).values(), ids=list(CLOSED | HEAD))
def test_rays_and_haproxys_own_ports_are_closed(network: Network, port: int) -> None:
    for pod in ("head", "cpu", "l4"):
        assert network.reach(pod, port) == set()


@pytest.mark.parametrize("port", (CLOSED | HEAD | {"a free port": 41234}).values())
def test_rays_pods_reach_one_another_at_every_port(network: Network, port: int) -> None:
    for source in ("head", "cpu", "l4"):
        for destination in ("head", "cpu", "l4"):
            assert network.may(source, destination, port)


def test_a_pod_of_another_release_is_a_stranger(network: Network) -> None:
    other = End("10.2.0.7", NAMESPACE, {**network.ends["cpu"].labels, "app.kubernetes.io/instance": "other"})
    for port in (GATEWAY, METRICS, 6379, 30000):
        assert not network.may(other, "head", port)
        assert not network.may(other, "cpu", port)
    assert not network.may(other, "llm-serving-redis", REDIS)


def test_so_is_a_pod_in_another_namespace_that_bears_the_labels(network: Network) -> None:
    assert not network.may(End("10.2.0.8", "shop", network.ends["cpu"].labels), "head", 6379)


def test_redis_is_for_the_head_the_gateways_and_the_job_that_empties_it(network: Network) -> None:
    own = {name for name in network.ends if network.may(name, "llm-serving-redis", REDIS)}
    assert own == {"head", "cpu", "redis-cleanup"}
    assert network.reach("llm-serving-redis", REDIS) == set()


def test_gateways_that_share_nothing_do_not_reach_redis() -> None:
    alone = Network({**VALUES, "gateway": {"sharesRedis": False}})
    own = {name for name in alone.ends if alone.may(name, "llm-serving-redis", REDIS)}
    assert own == {"head", "redis-cleanup"}


def test_milvus_is_for_the_pods_that_host_pipelines(network: Network) -> None:
    own = {name for name in network.ends if network.may(name, "llm-serving-milvus", MILVUS)}
    assert own == {"cpu"}
    assert network.reach("llm-serving-milvus", MILVUS) == set()


def test_what_milvus_tells_without_a_password_is_for_prometheus(network: Network) -> None:
    assert network.reach("llm-serving-milvus", MILVUS_METRICS) == {"prometheus"}
    assert not network.may("cpu", "llm-serving-milvus", MILVUS_METRICS)


@pytest.mark.parametrize("port", [2379, 2380, 19529, 19531, 53100])
def test_milvus_other_ports_are_closed(network: Network, port: int) -> None:
    assert network.reach("llm-serving-milvus", port) == set()
    assert not network.may("cpu", "llm-serving-milvus", port)


def test_milvus_itself_goes_nowhere(network: Network) -> None:
    assert not network.may("llm-serving-milvus", INTERNET, 443)
    assert not network.may("llm-serving-milvus", "cpu", GATEWAY)
    assert not network.may("llm-serving-milvus", "head", 6379)


def test_redis_itself_goes_nowhere(network: Network) -> None:
    assert not network.may("llm-serving-redis", INTERNET, 443)
    assert not network.may("llm-serving-redis", "head", 6379)


def test_helm_test_reaches_the_gateway_and_names_and_is_reached_by_nobody(network: Network) -> None:
    test = "llm-serving-test"
    assert network.may(test, "cpu", GATEWAY)
    assert network.may(test, End("10.4.0.10"), 53, "UDP")
    assert not network.may(test, "head", DASHBOARD)
    assert not network.may(test, INTERNET, 443)
    assert network.reach(test, GATEWAY) == set()
    assert not network.may("cpu", test, GATEWAY)


def test_a_job_that_brings_documents_reaches_them_and_the_gateway_and_is_reached_by_nobody(network: Network) -> None:
    (job,) = (name for name in network.ends if "-ingest-" in name)
    assert network.may(job, "cpu", GATEWAY)
    assert network.may(job, INTERNET, 443)
    assert not network.may(job, "head", DASHBOARD)
    assert not network.may("cpu", job, GATEWAY)
    assert network.reach(job, GATEWAY) == set()


def test_rays_pods_reach_everything_unless_their_ways_out_are_named(network: Network) -> None:
    assert network.may("cpu", INTERNET, 443)
    assert network.may("head", STRANGER, 19530)


def test_ways_out_that_are_named_close_the_others() -> None:
    egress = [{"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"port": 443}]}]
    named = Network({**VALUES, "networkPolicy": {"egress": egress}})
    for pod in ("head", "cpu", "l4"):
        assert named.may(pod, INTERNET, 443)
        assert not named.may(pod, INTERNET, 80)
        assert not named.may(pod, STRANGER, 19530)
        assert named.may(pod, End("169.254.20.10"), 53, "UDP")
        assert named.may(pod, "head", 6379)
    assert named.may("head", "llm-serving-redis", REDIS)
    assert named.may("cpu", "llm-serving-redis", REDIS)
    assert named.may("cpu", "llm-serving-milvus", MILVUS)


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://otel.monitoring:4318", 4318), ("http://otel", 80), ("https://otel.example.com", 443)],
)
def test_ways_out_that_are_named_leave_the_way_to_a_collector_in_the_cluster(endpoint: str, port: int) -> None:
    egress = [{"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"port": 443}]}]
    closed = {**STANDALONE, "networkPolicy": {"egress": egress}}
    traced = Network({**closed, "tracing": {"endpoint": endpoint}})
    for pod in ("cpu", "l4", MODEL):
        assert traced.may(pod, STRANGER, port)
        assert not traced.may(pod, STRANGER, 9999)
        assert not traced.may(pod, INTERNET, 80)
        assert not Network(closed).may(pod, STRANGER, port)


def test_a_jobs_pods_reach_the_collector_too() -> None:
    jobs = {"night": {"model": "chat", "input": "s3://bucket/in", "output": "s3://bucket/out"}}
    values = {
        "models": {"chat": CHAT},
        "batch": {"jobs": jobs},
        "networkPolicy": {"egress": [{"ports": [{"port": 443}]}]},
    }
    traced = render_chart({**values, "tracing": {"endpoint": "http://otel:4318"}})
    ways = of_kind(traced, "NetworkPolicy")["llm-serving-batch"]["spec"]["egress"]
    assert {"to": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": 4318}]} in ways


def test_without_clients_the_gateway_is_for_the_release_alone() -> None:
    alone = Network({})
    assert alone.reach("cpu", GATEWAY) == set()
    assert alone.may("llm-serving-test", "cpu", GATEWAY)


def test_the_operator_may_be_somewhere_else() -> None:
    elsewhere = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tools"}}}]
    assert Network({"networkPolicy": {"operators": elsewhere}}).reach("head", DASHBOARD) == {"developer"}


def test_nobody_in_a_list_is_nobody_and_not_everybody() -> None:
    nobody = Network({"networkPolicy": {"operators": [], "metricsClients": []}})
    for port in (DASHBOARD, METRICS, *HEAD_METRICS):
        assert nobody.reach("head", port) == set()


def test_it_follows_the_port() -> None:
    moved = Network({"gateway": {"port": 9000}, "networkPolicy": {"clients": CLIENTS}})
    assert moved.reach("cpu", 9000) == {"ingress", "balancer"}
    assert moved.reach("cpu", GATEWAY) == set()


def test_every_pod_of_the_release_is_behind_a_policy(network: Network) -> None:
    for name in network.ends:
        assert not network.may(STRANGER, name, 1)


def test_pods_that_hold_images_talk_to_nobody() -> None:
    pulling = Network({**VALUES, "image": {"prePull": ["0.2.0"]}})
    for port in (80, 443, GATEWAY):
        assert pulling.reach("llm-serving-pull-l4", port) == set()
        assert not pulling.may("cpu", "llm-serving-pull-l4", port)
        assert not pulling.may("llm-serving-pull-l4", INTERNET, port)


def test_there_are_none_if_they_are_switched_off() -> None:
    assert of_kind(render_chart({"networkPolicy": {"enabled": False}}), "NetworkPolicy") == {}


MODEL = "llm-serving-model-chat"
STANDALONE: dict[str, Any] = {**VALUES, "models": {**VALUES["models"], "chat": {**CHAT, "runtime": "standalone"}}}


@pytest.fixture(scope="module")
def with_standalone() -> Network:
    return Network(STANDALONE)


def test_a_standalone_model_is_for_the_pods_that_host_gateways(with_standalone: Network) -> None:
    own = {name for name in with_standalone.ends if with_standalone.may(name, MODEL, 8000)}
    assert own == {"cpu"}
    # Whoever may read metrics is asked for the credential everywhere else (serve_apps.llm.standalone).
    assert with_standalone.reach(MODEL, 8000) == {"prometheus"}


@pytest.mark.parametrize("port", [8001, 29500, 41234])
def test_its_other_ports_are_closed(with_standalone: Network, port: int) -> None:
    assert with_standalone.reach(MODEL, port) == set()
    assert not with_standalone.may("cpu", MODEL, port)


def test_it_fetches_weights_and_reaches_no_pod_of_the_release_at_what_is_closed(with_standalone: Network) -> None:
    assert with_standalone.may(MODEL, INTERNET, 443)
    for pod, port in (("cpu", GATEWAY), ("head", DASHBOARD), ("llm-serving-redis", REDIS)):
        assert not with_standalone.may(MODEL, pod, port)


def test_ways_out_that_are_named_leave_the_gateway_its_models() -> None:
    egress = [{"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"port": 443}]}]
    named = Network({**STANDALONE, "networkPolicy": {"egress": egress}})
    assert named.may("cpu", MODEL, 8000)
    assert named.may(MODEL, INTERNET, 443)
    assert not named.may(MODEL, INTERNET, 80)
    assert named.may(MODEL, End("10.4.0.10"), 53, "UDP")


def test_without_a_standalone_model_there_is_no_policy_for_any(network: Network) -> None:
    assert "llm-serving-models" not in {policy["metadata"]["name"] for policy in network.policies}
