from pathlib import Path
from typing import Any

import pytest

from tools.prometheus.scrape import scrape_configs

KUBECONFIG = Path("/etc/kubeconfig")
POD_MONITOR: dict[str, Any] = {
    "kind": "PodMonitor",
    "metadata": {"name": "prod"},
    "spec": {
        "selector": {"matchLabels": {"app.kubernetes.io/instance": "prod"}},
        "podMetricsEndpoints": [
            {
                "port": "as-metrics",
                "path": "/metrics",
                "interval": "15s",
                "relabelings": [
                    {"sourceLabels": ["__meta_kubernetes_pod_label_ray_io_cluster"], "targetLabel": "ray_io_cluster"}
                ],
            }
        ],
    },
}
SERVICE_MONITOR: dict[str, Any] = {
    "kind": "ServiceMonitor",
    "metadata": {"name": "operator"},
    "spec": {
        "namespaceSelector": {"matchNames": ["kuberay"]},
        "selector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
        "endpoints": [{"port": "http", "path": "/metrics", "interval": "15s", "honorLabels": True}],
    },
}


def test_a_pod_monitor_finds_pods_of_its_namespace_by_label_and_port() -> None:
    (config,) = scrape_configs(POD_MONITOR, "llm", KUBECONFIG)
    assert config["kubernetes_sd_configs"] == [
        {"role": "pod", "kubeconfig_file": "/etc/kubeconfig", "namespaces": {"names": ["llm"]}}
    ]
    assert (config["metrics_path"], config["scrape_interval"], config["honor_labels"]) == ("/metrics", "15s", False)
    rules = config["relabel_configs"]
    assert rules[0] == {
        "action": "keep",
        "source_labels": [
            "__meta_kubernetes_pod_label_app_kubernetes_io_instance",
            "__meta_kubernetes_pod_labelpresent_app_kubernetes_io_instance",
        ],
        "regex": "prod;true",
    }
    assert {
        "action": "keep",
        "source_labels": ["__meta_kubernetes_pod_container_port_name"],
        "regex": r"as\-metrics",
    } in rules
    assert {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"} in rules


def test_its_relabelings_come_last_and_in_prometheus_spelling() -> None:
    (config,) = scrape_configs(POD_MONITOR, "llm", KUBECONFIG)
    assert config["relabel_configs"][-1] == {
        "source_labels": ["__meta_kubernetes_pod_label_ray_io_cluster"],
        "target_label": "ray_io_cluster",
    }


def test_a_service_monitor_finds_endpoints_by_their_services_label_where_it_says() -> None:
    (config,) = scrape_configs(SERVICE_MONITOR, "llm", KUBECONFIG)
    (discovery,) = config["kubernetes_sd_configs"]
    assert (discovery["role"], discovery["namespaces"]) == ("endpointslice", {"names": ["kuberay"]})
    assert config["honor_labels"] is True
    sources = [rule.get("source_labels", []) for rule in config["relabel_configs"]]
    assert "__meta_kubernetes_service_label_app_kubernetes_io_name" in sources[0]
    assert ["__meta_kubernetes_endpointslice_port_name"] in sources


def test_what_is_not_known_is_refused_since_it_would_not_be_proven() -> None:
    endpoint = {**POD_MONITOR["spec"]["podMetricsEndpoints"][0], "params": {"match": ["x"]}}
    monitor = {**POD_MONITOR, "spec": {**POD_MONITOR["spec"], "podMetricsEndpoints": [endpoint]}}
    with pytest.raises(ValueError, match="PodMonitor prod: endpoint as-metrics: not known here: params; known: "):
        scrape_configs(monitor, "llm", KUBECONFIG)
    selector = {"matchExpressions": [{"key": "app", "operator": "Exists"}]}
    monitor = {**POD_MONITOR, "spec": {**POD_MONITOR["spec"], "selector": selector}}
    with pytest.raises(ValueError, match="PodMonitor prod: selector: not known here: matchExpressions"):
        scrape_configs(monitor, "llm", KUBECONFIG)
