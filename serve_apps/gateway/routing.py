"""Which upstream answers a request: a pure decision over the routing table."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from serve_apps.common.errors import InvalidRequest, MethodNotAllowed, NotFound
from serve_apps.common.protocol import TASK_PATHS, Task
from serve_apps.gateway.config import RoutingTable, Upstream

Kind = Literal["control", "model", "pipeline", "batch"]

#: Paths whose upstream is the model named in the body.
MODEL_PATHS = frozenset().union(*TASK_PATHS.values())
#: Paths the gateway answers itself, besides ``/v1/models/{id}``.
CONTROL_PATHS = frozenset({"/v1/models", "/v1/usage", "/healthz", "/readyz", "/openapi.json"})
MODEL_CARD_PREFIX = "/v1/models/"
#: Answers that were stored, which OpenAI's API offers to read, cancel and delete.
_RESPONSE_PREFIX = "/v1/responses/"
#: Paths below ``/v1/rag/{pipeline}/`` belong to that pipeline, and those below ``/v1/agents/{agent}/`` to that agent.
PIPELINE_PREFIX = "/v1/rag/"
AGENT_PREFIX = "/v1/agents/"
_PREFIXES: dict[str, Task] = {PIPELINE_PREFIX: "pipeline", AGENT_PREFIX: "agent"}
PIPELINE_METHODS = ("GET", "POST", "PUT", "DELETE")
#: Files and batches of OpenAI's API, and what is below them.
FILES_PATH = "/v1/files"
_BATCH_PATHS = (FILES_PATH, "/v1/batches")
BATCH_METHODS = ("GET", "POST", "DELETE")

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
    """Who answers ``path``: the gateway itself, a model, a pipeline (agents are no different here), or batches.

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
    elif path.startswith(tuple(_PREFIXES)) and _is_plain(path):
        kind, methods = "pipeline", PIPELINE_METHODS
    elif "/".join(path.split("/")[:3]) in _BATCH_PATHS and _is_plain(path):
        kind, methods = "batch", BATCH_METHODS
    elif path.startswith(_RESPONSE_PREFIX):
        # vLLM would keep them in the memory of one replica, without end, and the next request finds another replica.
        named = path.removeprefix(_RESPONSE_PREFIX).partition("/")[0]
        raise NotFound(
            f"Response with id '{named[:_QUOTED_NAME_CHARS]}' not found: responses are not stored here. Send the whole "
            'conversation in "input".',
            param="response_id",
            code="response_not_found",
        )
    else:
        raise NotFound(f"No such path: {method} {path[:_QUOTED_NAME_CHARS]}", code="unknown_path")
    if method not in methods:
        raise MethodNotAllowed(f"{path} answers {', '.join(methods)}, not {method}", allow=methods)
    return kind


def template(path: str) -> str:
    """A path without what clients put into it, for names of which there may be only few."""
    if path in MODEL_PATHS or path in CONTROL_PATHS:
        return path
    beginnings = (*_PREFIXES, *_BATCH_PATHS, MODEL_CARD_PREFIX)
    return next((f"{each.rstrip('/')}/…" for each in beginnings if path.startswith(each)), "unknown")


def model_route(table: RoutingTable, path: str, model: object) -> Route:
    """The upstream of the model that a request's body names; routes and aliases are not looked up here.

    Raises:
        InvalidRequest: no model is named, or the one named does not answer this path.
        NotFound: there is no such model.
    """
    name = named(table, model)
    upstream = table.models.get(name)
    if upstream is None:
        raise unknown_model(table, name)
    check_answers(upstream, path, name, table)
    return Route(name, upstream_url(upstream, path), upstream.task)


def named(table: RoutingTable, model: object) -> str:
    """The name in a body's ``model``, whether or not there is such a model.

    Raises:
        InvalidRequest: it is no name.
    """
    if not isinstance(model, str) or not model:
        raise InvalidRequest(f'Name the model in the field "model", as a string. {_models_here(table)}', param="model")
    return model


def check_answers(upstream: Upstream, path: str, model: str, table: RoutingTable) -> None:
    """Refuse a ``path`` that ``upstream``, which clients know as ``model``, does not answer.

    Raises:
        InvalidRequest: says what it does answer, and who answers the path.
    """
    if path not in TASK_PATHS[upstream.task]:
        fitting = [name for name, task in sorted(listed(table).items()) if path in TASK_PATHS[task]]
        raise InvalidRequest(
            f'The model "{model}" does not answer {path}; it answers {", ".join(sorted(TASK_PATHS[upstream.task]))}.'
            f" Models that answer {path}: {', '.join(fitting) or 'none'}.",
            param="model",
            code="unsupported_path",
        )


def upstream_url(upstream: Upstream, path: str) -> str:
    """Where ``upstream`` answers a model's ``path``, one of ``MODEL_PATHS``."""
    return upstream.url + path


def listed(table: RoutingTable) -> dict[str, Task]:
    """What clients may name, and what it does: every model, and every route that somebody stands behind already.

    A route does what the first of its models does. It hides a model of its name.
    """
    tasks = {name: upstream.task for name, upstream in table.models.items() if name not in table.routes}
    for name, rules in table.routes.items():
        models = (*(version.model for version in rules.versions), *rules.fallback)
        behind = next((table.models[model] for model in models if model in table.models), None)
        if behind is not None:
            tasks[name] = behind.task
    return tasks


def aliases(table: RoutingTable) -> dict[str, str]:
    """The route behind each alias. A route's own name is nobody else's alias."""
    return {alias: name for name, rules in table.routes.items() for alias in rules.aliases if alias not in table.routes}


def pipeline_route(table: RoutingTable, path: str, query: str = "") -> Route:
    """The upstream of the pipeline or agent named in ``path`` (decoded, as ``kind_of`` approved it).

    Raises:
        NotFound: there is no such pipeline or agent.
    """
    prefix, task = next(each for each in _PREFIXES.items() if path.startswith(each[0]))
    name = path.removeprefix(prefix).partition("/")[0]
    upstream = table.models.get(name)
    if upstream is None or upstream.task != task:
        others = [name for name, other in sorted(table.models.items()) if other.task == task]
        raise NotFound(
            f'The {task} "{name[:_QUOTED_NAME_CHARS]}" does not exist. {task.capitalize()}s here: '
            f"{', '.join(others) or 'none'}.",
            code=f"{task}_not_found",
        )
    return Route(name, _url_below(upstream.url, path, query), upstream.task)


def batch_url(table: RoutingTable, path: str, query: str = "") -> str:
    """Where ``path`` (decoded, as ``kind_of`` approved it) is answered, of files and batches.

    Raises:
        NotFound: there are none here.
    """
    if table.batch is None:
        raise NotFound(f"No such path: {path[:_QUOTED_NAME_CHARS]}; there are no batches here.", code="unknown_path")
    return _url_below(table.batch, path, query)


def is_upload(method: str, path: str) -> bool:
    """Whether a path takes documents or a file in, which may be larger than other bodies."""
    if path == FILES_PATH:
        return method == "POST"
    return method in ("POST", "PUT") and path.removeprefix(PIPELINE_PREFIX).partition("/")[2].startswith("documents")


def unknown_model(table: RoutingTable, model: str) -> NotFound:
    """The error for a name that is nothing here; it names the routes and models that are."""
    return NotFound(
        f'The model "{model[:_QUOTED_NAME_CHARS]}" does not exist. {_models_here(table)}',
        param="model",
        code="model_not_found",
    )


def _models_here(table: RoutingTable) -> str:
    return f"Models here: {', '.join(sorted(listed(table))) or 'none'}."


def _url_below(base: str, path: str, query: str) -> str:
    # Encoded again from what was checked, so that the upstream sees that and nothing else.
    url = base + quote(path, safe="/:@!$&'()*+,;=~")
    return f"{url}?{query}" if query else url


def _is_plain(path: str) -> bool:
    """Whether no segment could lead out of the prefix it is below once a URL library resolves it."""
    return "\\" not in path and not {".", ".."} & set(path.split("/"))
