"""The routes the gateway answers itself: the list of models, health, and their OpenAPI document."""

from collections.abc import Callable
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from serve_apps.common.errors import ServingError, Unavailable
from serve_apps.common.protocol import TASK_PATHS, Task
from serve_apps.gateway.config import RoutingTable, Upstream
from serve_apps.gateway.routing import model_named


class ModelCard(BaseModel):
    """A model or pipeline a client may name. The first four fields are OpenAI's."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="Always 0: when a model was made is not known here.")
    owned_by: Literal["llm-serving"] = "llm-serving"
    task: Task
    paths: list[str] = Field(description="The paths it answers.")


class ModelList(BaseModel):
    """Every model and pipeline."""

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


def build_control(table: Callable[[], RoutingTable], check_credentials: Callable[[], None]) -> FastAPI:
    """The control routes.

    Args:
        table: the routing table in force; raises ``Unavailable`` while there is none.
        check_credentials: raises ``RuntimeError`` if credentials cannot be looked up.
    """
    app = FastAPI(title="llm-serving gateway", docs_url=None, redoc_url=None)

    @app.exception_handler(ServingError)
    async def _shaped(_: Request, error: ServingError) -> Response:
        return Response(error.encoded(), error.status, error.headers())

    @app.get("/v1/models", responses=_errors(401, 503))
    async def list_models() -> ModelList:
        """The models and pipelines there are."""
        return ModelList(data=[_card(name, upstream) for name, upstream in sorted(table().models.items())])

    @app.get("/v1/models/{model}", responses=_errors(401, 404, 503))
    async def get_model(model: str) -> ModelCard:
        """One model or pipeline."""
        return _card(model, model_named(table(), model))

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

    return app


def _card(name: str, upstream: Upstream) -> ModelCard:
    return ModelCard(id=name, task=upstream.task, paths=sorted(TASK_PATHS[upstream.task]))


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody} for status in statuses}
