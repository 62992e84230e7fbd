"""The HTTP routes of the batch app: OpenAI's files and batches."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from serve_apps.batch.execution import Workplace
from serve_apps.batch.objects import ENDPOINTS, Batch, File
from serve_apps.batch.worker import Worker
from serve_apps.common import responses
from serve_apps.common.errors import InvalidRequest
from serve_apps.common.gateway_client import GatewayClient, caller_of
from serve_apps.common.middleware import ASGIApp, Guard
from serve_apps.common.requests import json_object
from serve_apps.common.secrets import InternalCredential

#: How long a client may have a file kept, in seconds.
_KEPT_S = (3600, 30 * 86400)
#: Files of a list at most, whatever the client says; the rest is on its next page.
_MAX_PAGE = 1000
#: Of the form that brings a file, beside the file.
_MAX_FIELDS = 10


def build_asgi(place: Workplace, worker: Worker, gateway: GatewayClient, credential: InternalCredential) -> ASGIApp:
    """The guarded ASGI app; the worker works while it runs."""
    routes = Routes(place, worker)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None, None]:
        worker.look_after()
        yield
        await worker.close()
        await gateway.close()

    app = Starlette(
        routes=[
            Route("/v1/files", routes.files, methods=["GET", "POST"]),
            Route("/v1/files/{id}", routes.file, methods=["GET", "DELETE"]),
            Route("/v1/files/{id}/content", routes.content, methods=["GET"]),
            Route("/v1/batches", routes.batches, methods=["GET", "POST"]),
            Route("/v1/batches/{id}", routes.batch, methods=["GET"]),
            Route("/v1/batches/{id}/cancel", routes.cancel, methods=["POST"]),
        ],
        lifespan=lifespan,
        exception_handlers=responses.HANDLERS,
    )
    app.router.redirect_slashes = False  # a redirect would leave the gateway's route
    return Guard(app, credential=credential, allows=_allows)


def _allows(_method: str, path: str) -> bool:
    return path.split("/")[1:3] in (["v1", "files"], ["v1", "batches"])


class Routes:
    """One method per route."""

    def __init__(self, place: Workplace, worker: Worker) -> None:
        self._place = place
        self._worker = worker

    async def files(self, request: Request) -> Response:
        """GET: the tenant's files. POST: a new one."""
        tenant = caller_of(request.headers).tenant
        if request.method == "POST":
            return responses.json((await self._upload(tenant, request)).model_dump())
        order = request.query_params.get("order", "desc")
        if order not in ("asc", "desc"):
            raise InvalidRequest("order: asc or desc", param="order", code="invalid_value")
        purpose = request.query_params.get("purpose")
        found, more = await self._place.files.listed(
            tenant,
            after=request.query_params.get("after"),
            limit=min(_limit(request, 10_000, 10_000), _MAX_PAGE),
            newest_first=order == "desc",
        )
        return _list([file for file in found if purpose in (None, file.purpose)], more)

    async def file(self, request: Request) -> Response:
        """GET: what is known of a file. DELETE: it is gone."""
        tenant, file_id = caller_of(request.headers).tenant, request.path_params["id"]
        if request.method == "GET":
            return responses.json((await self._place.files.find(tenant, file_id)).model_dump())
        await self._place.files.delete(tenant, file_id)
        return responses.json({"id": file_id, "object": "file", "deleted": True})

    async def content(self, request: Request) -> Response:
        """What is in a file."""
        tenant = caller_of(request.headers).tenant
        file = await self._place.files.find(tenant, request.path_params["id"])
        headers = {
            "content-length": str(file.bytes),
            "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
        }
        return StreamingResponse(
            self._place.files.content(tenant, file.id), headers=headers, media_type="application/octet-stream"
        )

    async def batches(self, request: Request) -> Response:
        """GET: the tenant's batches. POST: a new one."""
        tenant = caller_of(request.headers).tenant
        if request.method == "POST":
            batch = await self._create(tenant, await json_object(request))
            self._worker.nudge()
            return responses.json(batch.shown())
        found, more = await self._place.batches.listed(
            tenant, after=request.query_params.get("after"), limit=_limit(request, 20, 100)
        )
        return _list(found, more)

    async def batch(self, request: Request) -> Response:
        """How a batch stands."""
        tenant = caller_of(request.headers).tenant
        return responses.json((await self._place.batches.find(tenant, request.path_params["id"])).shown())

    async def cancel(self, request: Request) -> Response:
        """A batch ends early."""
        tenant = caller_of(request.headers).tenant
        return responses.json((await self._place.batches.cancel(tenant, request.path_params["id"])).shown())

    async def _upload(self, tenant: str, request: Request) -> File:
        settings = self._place.settings()
        async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
            upload = form.get("file")
            if not isinstance(upload, UploadFile):
                raise InvalidRequest(
                    "file: required, a file in a form", param="file", code="missing_required_parameter"
                )
            if form.get("purpose") != "batch":
                raise InvalidRequest(
                    "purpose: files are for batches here; set it to batch", param="purpose", code="invalid_value"
                )
            after = {
                key: form[f"expires_after[{key}]"] for key in ("anchor", "seconds") if f"expires_after[{key}]" in form
            }
            kept_s = _kept_s(after or None, "expires_after", settings.retention_hours * 3600)
            return await self._place.files.add(
                tenant,
                upload.filename or "batch.jsonl",
                upload.file,
                most_bytes=settings.max_file_bytes,
                most_stored=settings.max_stored_bytes,
                kept_s=kept_s,
            )

    async def _create(self, tenant: str, body: dict[str, Any]) -> Batch:
        for name in ("input_file_id", "endpoint", "completion_window"):
            if not isinstance(body.get(name), str):
                raise InvalidRequest(
                    f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
                )
        if body["endpoint"] not in ENDPOINTS:
            raise InvalidRequest(
                f"Invalid value for 'endpoint': one of {', '.join(ENDPOINTS)}.", param="endpoint", code="invalid_value"
            )
        most_s = self._place.settings().retention_hours * 3600
        after = body.get("output_expires_after")
        return await self._place.batches.add(
            tenant,
            body["input_file_id"],
            body["endpoint"],
            body["completion_window"],
            _metadata(body.get("metadata")),
            _kept_s(after, "output_expires_after", most_s) if after is not None else None,
        )


def _metadata(given: Any) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, dict) or len(given) > 16 or not all(map(_is_pair, given, given.values())):
        raise InvalidRequest(
            "metadata: at most 16 keys of 64 characters, with texts of 512", param="metadata", code="invalid_value"
        )
    return given


def _is_pair(key: str, value: Any) -> bool:
    return 0 < len(key) <= 64 and isinstance(value, str) and len(value) <= 512


def _kept_s(given: Any, name: str, most_s: int) -> int:
    """How long a file is kept: as long as all are, or less if the client says so."""
    if given is None:
        return most_s
    least, most = _KEPT_S
    seconds = str(given.get("seconds", "")) if isinstance(given, Mapping) else ""
    if not seconds.isdecimal() or not least <= int(seconds) <= most or given.get("anchor") != "created_at":
        raise InvalidRequest(
            f"{name}: the anchor created_at and seconds from {least} to {most}", param=name, code="invalid_value"
        )
    return min(int(seconds), most_s)


def _limit(request: Request, default: int, most: int) -> int:
    given = request.query_params.get("limit", str(default))
    if not given.isdecimal() or not 1 <= int(given) <= most:
        raise InvalidRequest(f"limit: a number from 1 to {most}", param="limit", code="invalid_value")
    return int(given)


def _list(found: Sequence[File | Batch], more: bool) -> Response:
    data = [each.shown() if isinstance(each, Batch) else each.model_dump() for each in found]
    ends = {"first_id": found[0].id if found else None, "last_id": found[-1].id if found else None}
    return responses.json({"object": "list", "data": data, **ends, "has_more": more})
