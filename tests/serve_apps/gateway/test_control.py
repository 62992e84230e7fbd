from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serve_apps.common.errors import Unavailable
from serve_apps.common.middleware import Receive, Scope, Send
from serve_apps.gateway.auth import Caller
from serve_apps.gateway.config import RoutingTable
from serve_apps.gateway.control import build_control
from serve_apps.gateway.metering import ModelUsage, TenantLimits, Usage

TABLE = RoutingTable.model_validate(
    {
        "models": {
            "embedder": {"url": "http://host/internal/embedder", "task": "embed"},
            "docs": {"url": "http://host/internal/rag", "task": "pipeline"},
        },
        "routes": {"search": {"versions": [{"model": "embedder", "weight": 7}], "aliases": ["openai/ada:2"]}},
    }
)


async def usage(tenant: str) -> Usage:
    limits = TenantLimits(
        requests_per_minute=1, tokens_per_minute=None, max_concurrent_requests=None, max_tokens=None, models=None
    )
    return Usage(tenant=tenant, month="2026-11", scope="all", total=ModelUsage(), models={}, budget=None, limits=limits)


def ask(
    path: str,
    *,
    table: RoutingTable | None = TABLE,
    credentials: str | None = None,
    tenant: str = "acme",
    may_name: Callable[[str, str], bool] = lambda tenant, name: True,
) -> Any:
    """Ask the control routes with a table (or none) and credentials that are readable, or what is wrong with them."""

    def current_table() -> RoutingTable:
        if table is None:
            raise Unavailable("no table yet")
        return table

    def check_credentials() -> None:
        if credentials:
            raise RuntimeError(credentials)

    control = build_control(current_table, check_credentials, usage, may_name)

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        scope["caller"] = Caller(tenant)
        await control(scope, receive, send)

    return TestClient(called).get(path)


def card(name: str, task: str, *paths: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "llm-serving", "task": task, "paths": [*paths]}


EMBED = ("embed", "/detokenize", "/tokenize", "/v1/embeddings")


def test_every_model_route_alias_and_pipeline_is_listed_with_what_it_answers() -> None:
    assert ask("/v1/models").json() == {
        "object": "list",
        "data": [
            card("docs", "pipeline", "/v1/chat/completions"),
            card("embedder", *EMBED),
            card("openai/ada:2", *EMBED),
            card("search", *EMBED),
        ],
    }


def test_what_a_tenant_may_not_name_is_not_listed_to_it() -> None:
    def only_search(tenant: str, name: str) -> bool:
        return (tenant, name) == ("acme", "search")

    assert [model["id"] for model in ask("/v1/models", may_name=only_search).json()["data"]] == [
        "openai/ada:2",
        "search",
    ]
    assert ask("/v1/models/docs", may_name=only_search).status_code == 404
    assert ask("/v1/models", may_name=only_search, tenant="other").json()["data"] == []


def test_an_aliass_card_is_found_by_its_whole_name() -> None:
    assert ask("/v1/models/openai/ada:2").json() == card("openai/ada:2", *EMBED)


def test_a_tenant_is_told_its_own_usage() -> None:
    answer = ask("/v1/usage", tenant="globex").json()
    assert (answer["tenant"], answer["limits"]["requests_per_minute"]) == ("globex", 1)


def test_one_model_is_shown() -> None:
    assert ask("/v1/models/docs").json()["id"] == "docs"


def test_an_unknown_model_is_told_those_there_are() -> None:
    response = ask("/v1/models/gpt-4")
    assert response.status_code == 404
    assert (
        response.json()["error"]["message"] == 'The model "gpt-4" does not exist. Models here: docs, embedder, search.'
    )


def test_without_a_table_there_are_no_models_to_list() -> None:
    assert ask("/v1/models", table=None).status_code == 503


def test_the_process_is_alive_whatever_else_is_missing() -> None:
    assert ask("/healthz", table=None, credentials="unreadable").json() == {"status": "ok"}


def test_a_gateway_with_a_table_and_credentials_is_ready() -> None:
    assert ask("/readyz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("table", "credentials", "message"),
    [(None, None, "no table yet"), (TABLE, "API keys: cannot read them", "API keys: cannot read them")],
)
def test_a_gateway_without_one_of_them_says_which(
    table: RoutingTable | None, credentials: str | None, message: str
) -> None:
    response = ask("/readyz", table=table, credentials=credentials)
    assert response.status_code == 503
    assert response.json()["error"]["message"] == message


def test_the_openapi_document_describes_every_control_route() -> None:
    document = ask("/openapi.json").json()
    assert set(document["paths"]) >= {"/v1/models", "/v1/models/{model}", "/v1/usage", "/healthz", "/readyz"}
    errors = document["paths"]["/v1/models/{model}"]["get"]["responses"]["404"]["content"]["application/json"]["schema"]
    assert errors == {"$ref": "#/components/schemas/ErrorBody"}
    usage = document["paths"]["/v1/usage"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert usage == {"$ref": "#/components/schemas/Usage"}
