"""The paths of pipelines and agents, as ``/openapi.json`` describes them; applications of their own answer them."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from serve_apps.common import api
from serve_apps.gateway.routing import AGENT_PREFIX, PIPELINE_PREFIX

_SCHEMAS = "#/components/schemas/"
_DOCUMENTS = f"{PIPELINE_PREFIX}{{pipeline}}/documents"
_RUNS = f"{AGENT_PREFIX}{{agent}}/runs"


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    path: str
    method: Literal["get", "post", "delete"]
    summary: str
    answer: type[BaseModel]
    asked: type[BaseModel] | None = None
    statuses: tuple[int, ...] = (200,)


OPERATIONS = (
    Operation(
        _DOCUMENTS,
        "post",
        "Take documents in: as JSON, as lines of JSON, or as files in a form.",
        api.IngestedDocuments,
        api.JsonDocuments,
        statuses=(200, 207),
    ),
    Operation(_DOCUMENTS, "get", "List the documents.", api.ListedDocuments),
    Operation(f"{_DOCUMENTS}/{{document}}", "delete", "Take a document out.", api.DeletedDocument),
    Operation(
        f"{PIPELINE_PREFIX}{{pipeline}}/search",
        "post",
        "Find chunks, without an answer.",
        api.SearchAnswer,
        api.Search,
    ),
    Operation(
        f"{PIPELINE_PREFIX}{{pipeline}}/query",
        "post",
        "Have a question answered from the documents.",
        api.QueryAnswer,
        api.Query,
    ),
    Operation(_RUNS, "post", "Have an agent work in the background.", api.Run, api.RunRequest, statuses=(202,)),
    Operation(f"{_RUNS}/{{run}}", "get", "How a run is going, or how it ended.", api.Run),
    Operation(f"{_RUNS}/{{run}}", "delete", "End a run and forget it.", api.DeletedRun),
)


def described(document: dict[str, Any]) -> dict[str, Any]:
    """``document``, an OpenAPI document with ``ErrorBody`` among its schemas, with these paths too."""
    bodies: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((each.asked, "validation") for each in OPERATIONS if each.asked is not None),
        *((each.answer, "serialization") for each in OPERATIONS),
    ]
    models, schemas = models_json_schema(bodies, ref_template=f"{_SCHEMAS}{{model}}")
    paths: dict[str, Any] = {}
    for each in OPERATIONS:
        paths.setdefault(each.path, {})[each.method] = {
            "summary": each.summary,
            "operationId": f"{each.method}_{each.answer.__name__}",
            "parameters": [
                {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
                for part in each.path.split("/")
                if part.startswith("{")
            ],
            **({"requestBody": {"required": True} | _json(models[each.asked, "validation"])} if each.asked else {}),
            "responses": {
                **{
                    str(status): {"description": each.summary, **_json(models[each.answer, "serialization"])}
                    for status in each.statuses
                },
                **{
                    status: {"description": "An error.", **_json({"$ref": f"{_SCHEMAS}ErrorBody"})}
                    for status in ("4XX", "5XX")
                },
            },
        }
    components = document["components"]["schemas"]
    return document | {
        "paths": document["paths"] | paths,
        "components": {"schemas": components | schemas.get("$defs", {})},
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}
