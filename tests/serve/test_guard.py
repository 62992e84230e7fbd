"""Nothing stands beside the gateway's door."""

import httpx
import pytest

from tests.serve.conftest import Service
from tests.serve.waiting import PATIENCE_S

#: vLLM's own control and data endpoints (facts: its api_key leaves many of them open).
CONTROL = [
    *("/metrics", "/health", "/invocations", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"),
    *("/pooling", "/scale_elastic_ep", "/docs", "/openapi.json", "/version", "/v1/models"),
]


@pytest.mark.parametrize("application", ["chat", "embedder", "rag", "batch"])
def test_an_application_is_not_answered_without_the_internal_credential(service: Service, application: str) -> None:
    for path in ("/v1/chat/completions", "/v1/embeddings", *CONTROL):
        url = f"{service.root}/internal/{application}{path}"
        answer = httpx.post(url, json={}, headers=service.headers, timeout=PATIENCE_S)
        assert answer.status_code == 401, path
        assert answer.json()["error"]["code"] == "internal_only"


def test_control_endpoints_are_closed_even_to_the_credential(service: Service) -> None:
    credential = {"x-llm-internal": "internal-secret"}
    for path in CONTROL:
        for method in ("GET", "POST"):
            url = f"{service.root}/internal/chat{path}"
            answer = httpx.request(method, url, headers=credential, timeout=PATIENCE_S)
            assert answer.status_code == 404, (method, path)


@pytest.mark.parametrize("path", CONTROL[:5])
def test_control_endpoints_are_not_reached_through_the_gateway(service: Service, path: str) -> None:
    answer = httpx.post(f"{service.root}{path}", json={"model": "chat"}, headers=service.headers, timeout=PATIENCE_S)
    assert answer.status_code in (404, 405), answer.text


def test_a_forged_tenant_is_not_believed(service: Service) -> None:
    answer = httpx.get(f"{service.root}/v1/models", headers={"x-llm-tenant": "admin"}, timeout=PATIENCE_S)
    assert answer.status_code == 401


def test_the_same_request_with_a_key_is_answered(service: Service) -> None:
    assert httpx.get(f"{service.root}/v1/models", headers=service.headers, timeout=PATIENCE_S).status_code == 200
