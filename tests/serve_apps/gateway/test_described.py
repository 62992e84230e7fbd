"""/openapi.json has every path of pipelines and agents that their applications have, and no other."""

from typing import Any

import pytest

from serve_apps.agent import ingress as agents
from serve_apps.common.secrets import InternalCredential
from serve_apps.gateway.described import OPERATIONS
from serve_apps.rag import ingress as pipelines
from tests.serve_apps.gateway.test_control import ask

CREDENTIAL = InternalCredential()
RAG: Any = pipelines.build_asgi(None, None, None, CREDENTIAL)  # type: ignore[arg-type]  # nobody is asked
AGENTS: Any = agents.build_asgi(None, CREDENTIAL)  # type: ignore[arg-type]


@pytest.mark.parametrize(("guarded", "prefix"), [(RAG, "/v1/rag/"), (AGENTS, "/v1/agents/")])
def test_all_that_an_application_has_is_described(guarded: Any, prefix: str) -> None:
    routes = guarded.app.app.routes
    there = {
        (route.path.replace(":path}", "}"), method.lower())
        for route in routes
        for method in route.methods - {"HEAD"}
        if route.path.startswith(prefix)
    }
    assert there == {(each.path, each.method) for each in OPERATIONS if each.path.startswith(prefix)}


def test_each_is_shown_with_the_shapes_of_its_bodies() -> None:
    document = ask("/openapi.json").json()
    query = document["paths"]["/v1/rag/{pipeline}/query"]["post"]
    assert query["parameters"] == [{"name": "pipeline", "in": "path", "required": True, "schema": {"type": "string"}}]
    shapes = [query["requestBody"], query["responses"]["200"], query["responses"]["4XX"]]
    names = [shape["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2] for shape in shapes]
    assert names == ["Query", "QueryAnswer", "ErrorBody"]
    question = document["components"]["schemas"]["Query"]["properties"]["question"]
    assert (question["type"], question["description"]) == ("string", "What is asked.")
    assert "contentType" in document["components"]["schemas"]["JsonDocument"]["properties"]
    assert document["components"]["schemas"].keys() >= {*names, "Citation", "Usage"}
