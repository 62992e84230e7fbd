from tests.chart.render import of_kind, render_chart, the


def test_there_is_none_unless_enabled() -> None:
    assert of_kind(render_chart(), "ServiceMonitor") == {}


def test_it_selects_the_operators_service_where_the_operator_runs() -> None:
    monitor = {"enabled": True, "operatorNamespace": "kuberay", "labels": {"release": "prometheus"}}
    found = the(render_chart({"monitoring": {"serviceMonitor": monitor}}), "ServiceMonitor")
    assert found["metadata"]["labels"]["release"] == "prometheus"
    assert found["spec"] == {
        "namespaceSelector": {"matchNames": ["kuberay"]},
        "selector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
        "endpoints": [{"port": "http", "path": "/metrics", "interval": "15s", "honorLabels": True}],
    }
