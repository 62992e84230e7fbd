from typing import Any

import pytest
from fastapi.testclient import TestClient

from serve_apps.common.errors import Unavailable
from serve_apps.gateway.config import RoutingTable
from serve_apps.gateway.control import build_control

TABLE = RoutingTable.model_validate(
    {
        "models": {
            "embedder": {"url": "http://host/internal/embedder", "task": "embed"},
            "docs": {"url": "http://host/internal/rag", "task": "pipeline"},
        }
    }
)


def ask(path: str, *, table: RoutingTable | None = TABLE, credentials: str | None = None) -> Any:
    """Ask the control routes with a table (or none) and credentials that are readable, or what is wrong with them."""

    def current_table() -> RoutingTable:
        if table is None:
            raise Unavailable("no table yet")
        return table

    def check_credentials() -> None:
        if credentials:
            raise RuntimeError(credentials)

    return TestClient(build_control(current_table, check_credentials)).get(path)


def test_every_model_and_pipeline_is_listed_with_what_it_answers() -> None:
    assert ask("/v1/models").json() == {
        "object": "list",
        "data": [
            {
                "id": "docs",
                "object": "model",
                "created": 0,
                "owned_by": "llm-serving",
                "task": "pipeline",
                "paths": ["/v1/chat/completions"],
            },
            {
                "id": "embedder",
                "object": "model",
                "created": 0,
                "owned_by": "llm-serving",
                "task": "embed",
                "paths": ["/v1/embeddings"],
            },
        ],
    }


def test_one_model_is_shown() -> None:
    assert ask("/v1/models/docs").json()["id"] == "docs"


def test_an_unknown_model_is_told_those_there_are() -> None:
    response = ask("/v1/models/gpt-4")
    assert response.status_code == 404
    assert response.json()["error"]["message"] == 'The model "gpt-4" does not exist. Models here: docs, embedder.'


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
    assert set(document["paths"]) == {"/v1/models", "/v1/models/{model}", "/healthz", "/readyz"}
    errors = document["paths"]["/v1/models/{model}"]["get"]["responses"]["404"]["content"]["application/json"]["schema"]
    assert errors == {"$ref": "#/components/schemas/ErrorBody"}
