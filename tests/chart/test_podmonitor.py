import json
import time
from pathlib import Path

from tests.chart.render import CHAT, of_kind, ray_cluster, ray_container, render_chart, the
from tools.prometheus.scrape import KINDS, scrape_configs
from tools.prometheus.server import prometheus

#: A busy machine takes its time.
PATIENCE_S = 60


def test_there_is_none_unless_enabled() -> None:
    assert of_kind(render_chart(), "PodMonitor") == {}


def test_it_selects_the_releases_ray_pods_and_ports_they_have() -> None:
    objects = render_chart({"monitoring": {"podMonitor": {"enabled": True}}}, release="prod")
    spec = the(objects, "PodMonitor")["spec"]
    cluster = ray_cluster(objects)
    assert spec["selector"] == {
        # KubeRay sets the second on every Ray pod; the first is ours.
        "matchLabels": {"app.kubernetes.io/instance": "prod", "ray.io/is-ray-node": "yes"}
    }
    assert cluster["headGroupSpec"]["template"]["metadata"]["labels"] == {"app.kubernetes.io/instance": "prod"}
    head_ports = {port["name"] for port in ray_container(cluster["headGroupSpec"])["ports"]}
    assert {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]} <= head_ports


def test_every_endpoint_bears_the_ray_cluster() -> None:
    monitor = {"enabled": True, "interval": "30s", "labels": {"release": "prometheus"}}
    found = the(render_chart({"monitoring": {"podMonitor": monitor}}), "PodMonitor")
    assert found["metadata"]["labels"]["release"] == "prometheus"
    for endpoint in found["spec"]["podMetricsEndpoints"]:
        assert (endpoint["path"], endpoint["interval"]) == ("/metrics", "30s")
        assert endpoint["relabelings"] == [
            {"sourceLabels": ["__meta_kubernetes_pod_label_ray_io_cluster"], "targetLabel": "ray_io_cluster"}
        ]


def test_standalone_models_have_one_of_their_own() -> None:
    monitoring = {"podMonitor": {"enabled": True, "interval": "30s", "labels": {"release": "prometheus"}}}
    objects = render_chart({"models": {"chat": {**CHAT, "runtime": "standalone"}}, "monitoring": monitoring})
    monitor = of_kind(objects, "PodMonitor")["llm-serving-models"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    template = the(objects, "Deployment")["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint == {
        "port": "http",
        "path": "/metrics",
        "interval": "30s",
        "relabelings": [{"sourceLabels": ["__meta_kubernetes_pod_label_llm_serving_model"], "targetLabel": "model"}],
    }
    assert template["metadata"]["labels"]["llm-serving/model"] == "chat"
    assert endpoint["port"] in {port["name"] for port in template["spec"]["containers"][0]["ports"]}


def test_a_real_prometheus_takes_what_the_monitors_say(tmp_path: Path) -> None:
    """It finds each monitor's pool; no cluster answers here, so nothing is in it."""
    objects = render_chart(
        {
            "models": {"chat": {**CHAT, "runtime": "standalone"}},
            "monitoring": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}},
        }
    )
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"name": "none", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "none", "context": {"cluster": "none"}}
    kubeconfig.write_text(json.dumps({"clusters": [cluster], "contexts": [context], "current-context": "none"}))
    configs = [config for one in objects if one["kind"] in KINDS for config in scrape_configs(one, "llm", kubeconfig)]
    pools = [
        "PodMonitor/llm/llm-serving-models/0",
        *(f"PodMonitor/llm/llm-serving/{number}" for number in range(3)),
        "ServiceMonitor/llm/llm-serving-operator/0",
    ]
    with prometheus(tmp_path, configs) as server:
        deadline = time.monotonic() + PATIENCE_S
        while (found := sorted(server.pools())) != pools:
            assert time.monotonic() < deadline, found
            time.sleep(0.2)


def test_so_has_the_milvus_of_the_release() -> None:
    monitoring = {"podMonitor": {"enabled": True, "interval": "30s", "labels": {"release": "prometheus"}}}
    objects = render_chart({"milvus": {"enabled": True}, "monitoring": monitoring})
    monitor = of_kind(objects, "PodMonitor")["llm-serving-milvus"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    template = the(objects, "StatefulSet")["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "30s"}]
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    assert ports["metrics"] == 9091
