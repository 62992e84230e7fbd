from typing import Any

from serve_apps.common.protocol import TASK_PATHS
from serve_apps.gateway import playground
from tests.chart.render import of_kind, render_chart, the

INGRESS: dict[str, Any] = {"enabled": True, "host": "llm.example.com"}
#: Its controller.
CLIENTS: dict[str, Any] = {"networkPolicy": {"clients": [{"namespaceSelector": {}}]}}


def test_there_is_none_unless_enabled() -> None:
    assert of_kind(render_chart(), "Ingress") == {}


def test_only_public_paths_are_routed_and_all_to_the_serve_service() -> None:
    (rule,) = the(render_chart({"ingress": INGRESS, **CLIENTS}), "Ingress")["spec"]["rules"]
    backend = {"service": {"name": "llm-serving-serve-svc", "port": {"number": 8000}}}
    paths = rule["http"]["paths"]
    assert {path["path"]: path["pathType"] for path in paths} == {
        "/v1": "Prefix",
        "/healthz": "Exact",
        "/rerank": "Exact",
        "/v2/rerank": "Exact",
        "/score": "Exact",
        "/tokenize": "Exact",
        "/detokenize": "Exact",
    }
    assert all(path["backend"] == backend for path in paths)
    assert rule["host"] == "llm.example.com"


def test_every_path_a_model_answers_is_routed() -> None:
    (rule,) = the(render_chart({"ingress": INGRESS, **CLIENTS}), "Ingress")["spec"]["rules"]
    exact = {path["path"] for path in rule["http"]["paths"] if path["pathType"] == "Exact"}
    outside = {path for path in frozenset().union(*TASK_PATHS.values()) if not path.startswith("/v1/")}
    assert outside
    assert outside == exact - {"/healthz"}


def test_the_playground_is_routed_where_it_is_served() -> None:
    values = {"ingress": INGRESS, "gateway": {"playground": True}, **CLIENTS}
    (rule,) = the(render_chart(values), "Ingress")["spec"]["rules"]
    paths = {path["path"]: path["pathType"] for path in rule["http"]["paths"]}
    assert (paths["/"], paths["/playground"]) == ("Exact", "Prefix")
    assert all(path.startswith("/playground/") for path in playground.PATHS - {"/"})


def test_class_annotations_and_tls_are_passed_on() -> None:
    tls = [{"secretName": "llm-tls", "hosts": ["llm.example.com"]}]
    annotations = {"alb.ingress.kubernetes.io/scheme": "internal"}
    ingress_values = {**INGRESS, "className": "alb", "annotations": annotations, "tls": tls}
    ingress = the(render_chart({"ingress": ingress_values, **CLIENTS}), "Ingress")
    assert ingress["metadata"]["annotations"] == annotations
    assert ingress["spec"]["ingressClassName"] == "alb"
    assert ingress["spec"]["tls"] == tls


def test_without_them_they_are_left_out() -> None:
    ingress = the(render_chart({"ingress": INGRESS, **CLIENTS}), "Ingress")
    assert "annotations" not in ingress["metadata"]
    assert set(ingress["spec"]) == {"rules"}


def test_it_follows_the_port() -> None:
    (rule,) = the(render_chart({"ingress": INGRESS, "gateway": {"port": 9000}, **CLIENTS}), "Ingress")["spec"]["rules"]
    assert {path["backend"]["service"]["port"]["number"] for path in rule["http"]["paths"]} == {9000}


DASHBOARD: dict[str, Any] = {
    "dashboard": {
        "auth": "token",
        "ingress": {"enabled": True, "host": "ray.example.com", "tls": [{"hosts": ["ray.example.com"]}]},
    },
    "networkPolicy": {"dashboardClients": [{"namespaceSelector": {}}]},
}


def test_the_dashboards_leads_to_the_head_and_nowhere_else() -> None:
    ingress = the(render_chart(DASHBOARD), "Ingress")
    assert ingress["metadata"]["name"] == "llm-serving-dashboard"
    (rule,) = ingress["spec"]["rules"]
    assert rule["host"] == "ray.example.com"
    (path,) = rule["http"]["paths"]
    assert path["path"] == "/"
    assert path["backend"]["service"] == {"name": "llm-serving-head-svc", "port": {"number": 8265}}
    assert ingress["spec"]["tls"] == [{"hosts": ["ray.example.com"]}]


def test_both_stand_side_by_side() -> None:
    policy = {**DASHBOARD["networkPolicy"], **CLIENTS["networkPolicy"]}
    values = {**DASHBOARD, "ingress": INGRESS, "networkPolicy": policy}
    assert set(of_kind(render_chart(values), "Ingress")) == {"llm-serving", "llm-serving-dashboard"}
