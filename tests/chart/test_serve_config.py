"""_serve-config.tpl: the document Ray Serve gets."""

from typing import Any

import yaml

from serve_apps.gateway import app as gateway_app
from serve_apps.gateway.config import GatewayArgs
from tests.chart.render import CHART, CHAT, DOCS, EMBEDDER, application, render_chart, serve_config

RAG: dict[str, Any] = {"models": {"chat": CHAT, "embedder": EMBEDDER}, "rag": {"docs": DOCS}}


def test_one_application_per_model_the_gateway_and_the_pipelines() -> None:
    applications = serve_config(render_chart(RAG))["applications"]
    assert {app["name"]: (app["route_prefix"], app["import_path"]) for app in applications} == {
        "gateway": ("/", "serve_apps.gateway.app:build_app"),
        "chat": ("/internal/chat", "serve_apps.llm.app:build_app"),
        "embedder": ("/internal/embedder", "serve_apps.llm.app:build_app"),
        "rag": ("/internal/rag", "serve_apps.rag.app:build_app"),
    }


def test_without_pipelines_there_is_no_rag_application() -> None:
    objects = render_chart({**RAG, "rag": {"docs": {**DOCS, "enabled": False}}})
    assert "rag" not in [app["name"] for app in serve_config(objects)["applications"]]


def test_the_gateways_table_names_every_model_and_pipeline() -> None:
    (deployment,) = application(render_chart(RAG), "gateway")["deployments"]
    assert deployment["user_config"] == {
        "models": {
            "chat": {"url": "http://127.0.0.1:8000/internal/chat", "task": "generate"},
            "embedder": {"url": "http://127.0.0.1:8000/internal/embedder", "task": "embed"},
            "docs": {"url": "http://127.0.0.1:8000/internal/rag", "task": "pipeline"},
        }
    }


def test_the_port_reaches_all_who_need_it() -> None:
    objects = render_chart({**RAG, "gateway": {"port": 9000}})
    assert serve_config(objects)["http_options"] == {"host": "0.0.0.0", "port": 9000}
    assert application(objects, "rag")["args"]["gatewayUrl"] == "http://127.0.0.1:9000"
    table = application(objects, "gateway")["deployments"][0]["user_config"]["models"]
    assert {entry["url"][:22] for entry in table.values()} == {"http://127.0.0.1:9000/"}


def test_a_laptop_listens_on_loopback() -> None:
    assert serve_config(render_chart({**RAG, "gateway": {"host": "127.0.0.1"}}))["http_options"]["host"] == "127.0.0.1"


def test_the_gateways_arguments_are_its_values_less_what_the_chart_reads() -> None:
    objects = render_chart({"gateway": {"maxConcurrentRequests": 64, "stallTimeoutS": 30.5}})
    assert application(objects, "gateway")["args"] == {
        "auth": "apiKeys",
        "maxConcurrentRequests": 64,
        "maxRequestBytes": 4 * 1024 * 1024,
        "maxUploadBytes": 32 * 1024 * 1024,
        "firstByteTimeoutS": 900,
        "stallTimeoutS": 30.5,
    }


def test_the_gateways_defaults_are_the_applications_own() -> None:
    args = application(render_chart(), "gateway")["args"]
    assert GatewayArgs.model_validate(args) == GatewayArgs()
    written = yaml.safe_load((CHART / "values.yaml").read_text())["gateway"]
    assert set(args) - {"auth"} == set(GatewayArgs().model_dump(by_alias=True)) - {"auth"} <= set(written)


def test_the_gateway_refuses_before_serve_does() -> None:
    (deployment,) = application(render_chart({"gateway": {"maxConcurrentRequests": 64}}), "gateway")["deployments"]
    assert deployment["max_ongoing_requests"] == 64 + gateway_app.HEADROOM
    assert deployment["autoscaling_config"]["target_ongoing_requests"] == 48


def test_the_gateway_and_the_pipelines_run_where_the_group_says_so() -> None:
    objects = render_chart({**RAG, "gateway": {"cpus": 1}, "pipelines": {"cpus": 0.25}})
    options = {name: application(objects, name)["deployments"][0]["ray_actor_options"] for name in ("gateway", "rag")}
    selector = {"llm-serving/role": "pipelines"}
    assert options == {
        "gateway": {"num_cpus": 1, "label_selector": selector},
        "rag": {"num_cpus": 0.25, "label_selector": selector},
    }


def test_every_deployment_that_takes_requests_is_bounded_and_refuses_with_429() -> None:
    for app in serve_config(render_chart(RAG))["applications"]:
        deployment = app["deployments"][0]
        assert deployment["max_queued_requests"] > 0
        assert deployment["backpressure_config"] == {"status_code": 429, "retry_after_s": 1}


def test_the_pipelines_sizing_and_content_are_their_values() -> None:
    sizing = {"replicas": {"min": 2, "max": 3}, "maxOngoingRequests": 10, "maxQueuedRequests": 5, "drainSeconds": 40}
    pipeline = {**DOCS, "topK": 8, "systemPrompt": "Answer: yes\nor no"}
    app = application(render_chart({**RAG, "pipelines": sizing, "rag": {"docs": pipeline}}), "rag")
    (deployment,) = app["deployments"]
    assert deployment["user_config"] == {"pipelines": {"docs": pipeline}}
    assert deployment["autoscaling_config"] == {
        "min_replicas": 2,
        "max_replicas": 3,
        "target_ongoing_requests": 7,
    }
    assert (deployment["max_ongoing_requests"], deployment["max_queued_requests"]) == (10, 5)
    assert deployment["graceful_shutdown_timeout_s"] == 40


def test_pipelines_wait_for_a_model_as_long_as_the_gateway_does() -> None:
    app = application(render_chart({**RAG, "gateway": {"firstByteTimeoutS": 1800}}), "rag")
    assert app["args"] == {"gatewayUrl": "http://127.0.0.1:8000", "modelTimeoutS": 1800}


def test_large_numbers_stay_whole() -> None:
    objects = render_chart({"gateway": {"maxUploadBytes": 1_073_741_824}})
    assert application(objects, "gateway")["args"]["maxUploadBytes"] == 1_073_741_824
