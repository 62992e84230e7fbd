from typing import Any

from tests.chart.render import of_kind, render_chart, the

INGRESS: dict[str, Any] = {"enabled": True, "host": "llm.example.com"}


def test_there_is_none_unless_enabled() -> None:
    assert of_kind(render_chart(), "Ingress") == {}


def test_only_public_paths_are_routed_and_all_to_the_serve_service() -> None:
    (rule,) = the(render_chart({"ingress": INGRESS}), "Ingress")["spec"]["rules"]
    backend = {"service": {"name": "llm-serving-serve-svc", "port": {"number": 8000}}}
    assert rule == {
        "host": "llm.example.com",
        "http": {
            "paths": [
                {"path": "/healthz", "pathType": "Exact", "backend": backend},
                {"path": "/v1", "pathType": "Prefix", "backend": backend},
            ]
        },
    }


def test_class_annotations_and_tls_are_passed_on() -> None:
    tls = [{"secretName": "llm-tls", "hosts": ["llm.example.com"]}]
    annotations = {"alb.ingress.kubernetes.io/scheme": "internal"}
    ingress = the(
        render_chart({"ingress": {**INGRESS, "className": "alb", "annotations": annotations, "tls": tls}}), "Ingress"
    )
    assert ingress["metadata"]["annotations"] == annotations
    assert ingress["spec"]["ingressClassName"] == "alb"
    assert ingress["spec"]["tls"] == tls


def test_without_them_they_are_left_out() -> None:
    ingress = the(render_chart({"ingress": INGRESS}), "Ingress")
    assert "annotations" not in ingress["metadata"]
    assert set(ingress["spec"]) == {"rules"}


def test_it_follows_the_port() -> None:
    (rule,) = the(render_chart({"ingress": INGRESS, "gateway": {"port": 9000}}), "Ingress")["spec"]["rules"]
    assert {path["backend"]["service"]["port"]["number"] for path in rule["http"]["paths"]} == {9000}
