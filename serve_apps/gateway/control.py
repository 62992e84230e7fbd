"""The routes the gateway answers itself: the list of models, a tenant's usage, health, and their OpenAPI document."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from serve_apps.common.errors import ServingError, Unavailable
from serve_apps.common.protocol import TASK_PATHS, Task
from serve_apps.gateway.adapters import Adapters
from serve_apps.gateway.auth import Caller
from serve_apps.gateway.config import RoutingTable
from serve_apps.gateway.described import described
from serve_apps.gateway.metering import Usage
from serve_apps.gateway.routing import aliases, listed, unknown_model


class ModelCard(BaseModel):
    """A model, route, alias, adapter or pipeline a client may name. The first four fields are OpenAI's."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="Always 0: when a model was made is not known here.")
    owned_by: Literal["llm-serving"] = "llm-serving"
    task: Task
    paths: list[str] = Field(description="The paths it answers.")
    parent: str | None = Field(default=None, description="The model that an adapter belongs to.")


class ModelList(BaseModel):
    """Everything the caller may name."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(BaseModel):
    """Always ``ok``: a gateway that is not well answers with an error."""

    status: Literal["ok"] = "ok"


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """OpenAI's error shape."""

    error: ErrorDetail


def build_control(
    table: Callable[[], RoutingTable],
    check_credentials: Callable[[], None],
    usage: Callable[[str], Awaitable[Usage]],
    may_name: Callable[[str, str], bool],
) -> FastAPI:
    """The control routes. Whoever calls them puts the caller into the scope, as ``caller``.

    Args:
        table: the routing table in force; raises ``Unavailable`` while there is none.
        check_credentials: raises ``RuntimeError`` if credentials cannot be looked up.
        usage: what a tenant has used.
        may_name: whether a tenant may use what is called by a name.
    """
    app = FastAPI(title="llm-serving gateway", docs_url=None, redoc_url=None)

    @app.exception_handler(ServingError)
    async def _shaped(_: Request, error: ServingError) -> Response:
        return Response(error.encoded(), error.status, error.headers())

    def _cards(caller: Caller) -> dict[str, ModelCard]:
        tasks, routes = listed(table()), aliases(table())
        tasks |= {alias: tasks[name] for alias, name in routes.items() if name in tasks}
        cards = {
            name: _card(name, task)
            for name, task in tasks.items()
            if caller.internal or may_name(caller.tenant, routes.get(name, name))
        }
        adapters = Adapters(table())
        for name, one in adapters.listed(caller.tenant).items():
            if caller.internal or may_name(caller.tenant, one.model) or may_name(caller.tenant, one.id):
                cards[name] = _card(name, adapters.upstream(one).task, one.model)
        return dict(sorted(cards.items()))

    @app.get("/v1/models", response_model_exclude_none=True, responses=_errors(401, 503))
    async def list_models(request: Request) -> ModelList:
        """The models, routes and pipelines that the caller may name."""
        return ModelList(data=list(_cards(_caller(request)).values()))

    @app.get("/v1/models/{model:path}", response_model_exclude_none=True, responses=_errors(401, 404, 503))
    async def get_model(request: Request, model: str) -> ModelCard:
        """One of them."""
        card = _cards(_caller(request)).get(model)
        if card is None:
            raise unknown_model(table(), model)
        return card

    @app.get("/v1/usage", responses=_errors(401, 503))
    async def get_usage(request: Request) -> Usage:
        """What the caller's tenant has used this month, and what it may."""
        return await usage(_caller(request).tenant)

    @app.get("/healthz")
    async def healthz() -> Health:
        """The process is alive."""
        return Health()

    @app.get("/readyz", responses=_errors(503))
    async def readyz() -> Health:
        """There is a routing table, and credentials can be looked up."""
        table()
        try:
            check_credentials()
        except RuntimeError as error:
            raise Unavailable(str(error), code="not_ready") from None
        return Health()

    app.openapi_schema = described(app.openapi())  # what FastAPI shows from now on
    return app


def _card(name: str, task: Task, parent: str | None = None) -> ModelCard:
    return ModelCard(id=name, task=task, paths=sorted(TASK_PATHS[task]), parent=parent)


def _caller(request: Request) -> Caller:
    caller: Caller = request.scope["caller"]
    return caller


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody} for status in statuses}
