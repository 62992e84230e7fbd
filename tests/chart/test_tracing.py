"""_tracing.tpl: what OpenTelemetry reads of the environment, and the way to the collector."""

from typing import Any

import pytest

from tests.chart.render import CHAT, DOCS, EMBEDDER, RenderRefused, application, render_chart, serve_config
from tests.chart.test_standalone import container, flags

ENDPOINT = "http://otel-collector.monitoring:4318"
TRACED: dict[str, Any] = {"tracing": {"endpoint": ENDPOINT, "sampleRatio": 0.5}}
VALUES: dict[str, Any] = {
    "models": {"chat": {**CHAT, "env": {"OTEL_SERVICE_NAME": "mine"}}, "embedder": EMBEDDER},
    "rag": {"docs": DOCS},
    "agent": {"helper": {"model": "chat"}},
}


def environment(values: dict[str, Any], name: str) -> dict[str, str]:
    app = application(render_chart(values), name)
    found: dict[str, str] = app.get("runtime_env", {}).get("env_vars", {})
    return found


@pytest.mark.parametrize("name", ["gateway", "rag", "agent", "embedder"])
def test_an_application_knows_the_collector_and_its_own_name(name: str) -> None:
    assert environment({**VALUES, **TRACED}, name) == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT,
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_SERVICE_NAME": name,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.5",
    }


def test_what_a_model_is_given_by_name_goes_first() -> None:
    assert environment({**VALUES, **TRACED}, "chat")["OTEL_SERVICE_NAME"] == "mine"


def test_vllm_sends_its_spans_there_too() -> None:
    app = application(render_chart({**VALUES, **TRACED}), "chat")
    assert app["args"]["engine"]["extra"] == {"otlp_traces_endpoint": f"{ENDPOINT}/v1/traces"}
    standalone = container(TRACED)
    assert flags(standalone["args"])["otlp-traces-endpoint"] == f"{ENDPOINT}/v1/traces"
    assert {"name": "OTEL_SERVICE_NAME", "value": "chat"} in standalone["env"]


def test_nothing_of_it_without_a_collector() -> None:
    for app in serve_config(render_chart(VALUES))["applications"]:
        assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in app.get("runtime_env", {}).get("env_vars", {})
        assert "engine" not in app["args"]
    assert "OTEL_SERVICE_NAME" not in {one["name"] for one in container()["env"]}


@pytest.mark.parametrize("endpoint", ["otel:4317", f"{ENDPOINT}/v1/traces"])
def test_an_address_has_a_scheme_and_no_path(endpoint: str) -> None:
    with pytest.raises(RenderRefused, match=r"at '/tracing/endpoint'"):
        render_chart({"tracing": {"endpoint": endpoint}})
