from tests.chart.render import CHAT, of_kind, ray_cluster, ray_container, render_chart, the


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
    assert endpoint == {"port": "http", "path": "/metrics", "interval": "30s"}
    assert endpoint["port"] in {port["name"] for port in template["spec"]["containers"][0]["ports"]}
