"""Which upstream answers a request: a pure decision over the routing table."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from serve_apps.common.errors import InvalidRequest, MethodNotAllowed, NotFound
from serve_apps.common.protocol import TASK_PATHS, Task
from serve_apps.gateway.config import RoutingTable, Upstream

Kind = Literal["control", "model", "pipeline"]

#: Paths whose upstream is the model named in the body.
MODEL_PATHS = frozenset().union(*TASK_PATHS.values())
#: Paths the gateway answers itself, besides ``/v1/models/{id}``.
CONTROL_PATHS = frozenset({"/v1/models", "/healthz", "/readyz", "/openapi.json"})
MODEL_CARD_PREFIX = "/v1/models/"
#: Paths below ``/v1/rag/{pipeline}/`` belong to that pipeline.
PIPELINE_PREFIX = "/v1/rag/"
PIPELINE_METHODS = ("GET", "POST", "PUT", "DELETE")

#: Names are quoted back to the client up to this length.
_QUOTED_NAME_CHARS = 80


@dataclass(frozen=True, slots=True)
class Route:
    """Where one request goes."""

    model: str
    """The model's or pipeline's name in the table."""
    url: str
    """Absolute and already percent-encoded."""
    task: Task
    """What the upstream does."""


def kind_of(method: str, path: str) -> Kind:
    """Who answers ``path``: the gateway itself, a model, or a pipeline.

    Raises:
        NotFound: nobody does.
        MethodNotAllowed: somebody does, with another method.
    """
    kind: Kind
    methods: tuple[str, ...]
    if path in MODEL_PATHS:
        kind, methods = "model", ("POST",)
    elif path in CONTROL_PATHS or path.startswith(MODEL_CARD_PREFIX):
        kind, methods = "control", ("GET",)
    elif path.startswith(PIPELINE_PREFIX) and _is_plain(path):
        kind, methods = "pipeline", PIPELINE_METHODS
    else:
        raise NotFound(f"No such path: {method} {path[:_QUOTED_NAME_CHARS]}", code="unknown_path")
    if method not in methods:
        raise MethodNotAllowed(f"{path} answers {', '.join(methods)}, not {method}", allow=methods)
    return kind


def model_route(table: RoutingTable, path: str, model: object) -> Route:
    """The upstream of the model a request's body names.

    Raises:
        InvalidRequest: no model is named, or the one named does not answer this path.
        NotFound: there is no such model.
    """
    if not isinstance(model, str) or not model:
        raise InvalidRequest(f'Name the model in the field "model", as a string. {_models_here(table)}', param="model")
    upstream = table.models.get(model)
    if upstream is None:
        raise unknown_model(table, model)
    if path not in TASK_PATHS[upstream.task]:
        fitting = [name for name, other in sorted(table.models.items()) if path in TASK_PATHS[other.task]]
        raise InvalidRequest(
            f'The model "{model}" does not answer {path}; it answers {", ".join(sorted(TASK_PATHS[upstream.task]))}.'
            f" Models that answer {path}: {', '.join(fitting) or 'none'}.",
            param="model",
            code="unsupported_path",
        )
    return Route(model, upstream.url + path, upstream.task)


def pipeline_route(table: RoutingTable, path: str, query: str = "") -> Route:
    """The upstream of the pipeline named in ``path`` (decoded, as ``kind_of`` approved it).

    Raises:
        NotFound: there is no such pipeline.
    """
    name = path.removeprefix(PIPELINE_PREFIX).partition("/")[0]
    upstream = table.models.get(name)
    if upstream is None or upstream.task != "pipeline":
        pipelines = [name for name, other in sorted(table.models.items()) if other.task == "pipeline"]
        raise NotFound(
            f'The pipeline "{name[:_QUOTED_NAME_CHARS]}" does not exist. Pipelines here: '
            f"{', '.join(pipelines) or 'none'}.",
            code="pipeline_not_found",
        )
    # Encoded again from what was checked, so that the upstream sees that and nothing else.
    url = upstream.url + quote(path, safe="/:@!$&'()*+,;=~")
    return Route(name, f"{url}?{query}" if query else url, upstream.task)


def is_upload(method: str, path: str) -> bool:
    """Whether a pipeline's path takes documents in, which may be larger than other bodies."""
    return method in ("POST", "PUT") and path.removeprefix(PIPELINE_PREFIX).partition("/")[2].startswith("documents")


def model_named(table: RoutingTable, model: str) -> Upstream:
    """The table's entry for ``model``.

    Raises:
        NotFound: there is none.
    """
    upstream = table.models.get(model)
    if upstream is None:
        raise unknown_model(table, model)
    return upstream


def unknown_model(table: RoutingTable, model: str) -> NotFound:
    """The error for a model that is not in the table; it names those that are."""
    return NotFound(
        f'The model "{model[:_QUOTED_NAME_CHARS]}" does not exist. {_models_here(table)}',
        param="model",
        code="model_not_found",
    )


def _models_here(table: RoutingTable) -> str:
    return f"Models here: {', '.join(sorted(table.models)) or 'none'}."


def _is_plain(path: str) -> bool:
    """Whether no segment could lead out of the pipeline's own prefix once a URL library resolves it."""
    return "\\" not in path and not {".", ".."} & set(path.split("/"))
