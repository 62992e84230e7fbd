"""The HTTP routes of the RAG app: documents in, answers out."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from serve_apps.common.errors import InvalidRequest, MethodNotAllowed, NotFound, ServingError
from serve_apps.common.logging import request_id
from serve_apps.common.middleware import ASGIApp, Guard, Receive, Scope, Send
from serve_apps.common.protocol import DEGRADED_HEADER, REQUEST_ID_HEADER, TENANT_HEADER
from serve_apps.common.secrets import InternalCredential
from serve_apps.rag import bodies, conversation, prompt
from serve_apps.rag.answer import Answer
from serve_apps.rag.conversation import Conversation
from serve_apps.rag.disconnect import CancelOnDisconnect
from serve_apps.rag.gateway_client import Caller, GatewayClient
from serve_apps.rag.observation import Observer
from serve_apps.rag.pipelines import Pipelines, RunningPipeline

logger = logging.getLogger(__name__)


def build_asgi(
    pipelines: Pipelines, gateway: GatewayClient, observer: Observer, credential: InternalCredential
) -> ASGIApp:
    """The guarded ASGI app. ``pipelines`` may be replaced while it runs."""
    routes = Routes(pipelines, gateway, observer)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None, None]:
        yield
        await gateway.close()

    # Starlette types a handler as one that takes any Exception.
    refusals: dict[Any, Any] = {ServingError: _refused, HTTPException: _http_refused, Exception: _broke}
    app = Starlette(
        routes=[
            Route("/v1/rag/{pipeline}/documents", routes.documents, methods=["GET", "POST"]),
            Route("/v1/rag/{pipeline}/documents/{document:path}", routes.delete_document, methods=["DELETE"]),
            Route("/v1/rag/{pipeline}/query", routes.query, methods=["POST"]),
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
        ],
        lifespan=lifespan,
        exception_handlers=refusals,
    )
    app.router.redirect_slashes = False  # a redirect would leave the gateway's route
    return Guard(CancelOnDisconnect(app), credential=credential, allows=_allows)


def _allows(method: str, path: str) -> bool:
    return path.startswith("/v1/rag/") or (method == "POST" and path == "/v1/chat/completions")


class Routes:
    """One method per route."""

    def __init__(self, pipelines: Pipelines, gateway: GatewayClient, observer: Observer) -> None:
        self._pipelines = pipelines
        self._gateway = gateway
        self._observer = observer

    async def documents(self, request: Request) -> Response:
        """POST: documents in, as files or as JSON. GET: what is in the store."""
        pipeline = self._pipeline(request)
        if request.method == "POST":
            given = await bodies.read_documents(request, pipeline.settings.max_document_bytes)
            return _json({"documents": await pipeline.ingester.ingest(given, _caller(request))})
        stored = await pipeline.store.documents()
        listed = [{"id": each.id, "chunks": each.chunks, "metadata": each.metadata} for each in stored]
        return _json({"documents": listed})

    async def delete_document(self, request: Request) -> Response:
        """A document and its chunks out."""
        pipeline = self._pipeline(request)
        document = request.path_params["document"]
        chunks = await pipeline.store.delete(document)
        if not chunks:
            raise NotFound(f"no such document {document!r} in pipeline {pipeline.name!r}", code="document_not_found")
        return _json({"id": document, "chunks": chunks, "status": "deleted"})

    async def query(self, request: Request) -> Response:
        """A question, answered from the documents."""
        pipeline = self._pipeline(request)
        query = bodies.parse(bodies.Query, await bodies.read_json(request))
        body: dict[str, Any] = {"stream_options": {"include_usage": True}} if query.stream else {}
        answer, completion = await self._prepare(
            pipeline, Conversation(query.question.strip()), body, _caller(request), query.top_k
        )
        if not query.stream:
            return _answered(answer.query(await self._complete(pipeline, completion, _caller(request))), answer)
        payloads = self._stream(pipeline, completion, _caller(request))
        return await _streamed(payloads, answer.query_events(payloads), answer)

    async def chat(self, request: Request) -> Response:
        """A conversation, answered from the documents; the pipeline poses as a model."""
        body = await bodies.read_json(request)
        if not isinstance(body, dict) or not isinstance(body.get("model"), str):
            raise InvalidRequest("model: required, the pipeline's name", param="model")
        pipeline = self._pipelines.find(body["model"])
        answer, completion = await self._prepare(pipeline, conversation.read(body), body, _caller(request))
        if not body.get("stream"):
            return _answered(answer.chat(await self._complete(pipeline, completion, _caller(request))), answer)
        payloads = self._stream(pipeline, completion, _caller(request))
        return await _streamed(payloads, answer.chat_events(payloads), answer)

    def _pipeline(self, request: Request) -> RunningPipeline:
        return self._pipelines.find(request.path_params["pipeline"])

    async def _prepare(
        self,
        pipeline: RunningPipeline,
        said: Conversation,
        body: dict[str, Any],
        caller: Caller,
        top_k: int | None = None,
    ) -> tuple[Answer, dict[str, Any]]:
        """Retrieve; returns how the answer will leave, and the request to the model."""
        settings = pipeline.settings
        retrieval = await pipeline.retriever.retrieve(said.question, caller, top_k)
        messages = prompt.messages(settings.system_prompt, said, retrieval, settings.max_history_words)
        # A notice would break the syntax of an answer that must be JSON; header and body still flag it.
        notice = "" if body.get("response_format") else prompt.notice(retrieval)
        return Answer(pipeline.name, retrieval, notice), conversation.request_for(settings, body, messages)

    async def _complete(self, pipeline: RunningPipeline, completion: dict[str, Any], caller: Caller) -> dict[str, Any]:
        with self._observer.stage(pipeline.name, "generate"):
            return await self._gateway.chat(completion, caller)

    async def _stream(
        self, pipeline: RunningPipeline, completion: dict[str, Any], caller: Caller
    ) -> AsyncGenerator[bytes, None]:
        with self._observer.stage(pipeline.name, "generate"):
            async with aclosing(self._gateway.stream_chat(completion, caller)) as payloads:
                async for payload in payloads:
                    yield payload


def _caller(request: Request) -> Caller:
    rid = request.headers.get(REQUEST_ID_HEADER, "")
    request_id.set(rid)
    return Caller(request.headers.get(TENANT_HEADER, ""), rid)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")


def _flags(answer: Answer) -> dict[str, str]:
    return {DEGRADED_HEADER: ",".join(answer.retrieval.degraded)} if answer.retrieval.degraded else {}


def _answered(body: dict[str, Any], answer: Answer) -> Response:
    return _json(body, headers=_flags(answer))


async def _streamed(
    payloads: AsyncGenerator[bytes, None], events: AsyncGenerator[bytes, None], answer: Answer
) -> Response:
    """Server-sent ``events``, made from ``payloads``; a failure before the first event keeps its own status."""
    first = await anext(events)

    async def body() -> AsyncGenerator[bytes, None]:
        async with aclosing(payloads), aclosing(events):
            yield first
            async for event in events:
                yield event

    return _EventStream(body(), headers={"cache-control": "no-cache", **_flags(answer)})


class _EventStream(StreamingResponse):
    """Closes what makes its events together with itself, so the model stops when the client has gone."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], headers: dict[str, str]) -> None:
        super().__init__(events, headers=headers)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)


async def _refused(_: Request, error: ServingError) -> Response:
    return Response(error.encoded(), error.status, error.headers())


async def _http_refused(request: Request, error: HTTPException) -> Response:
    """Starlette's own refusals (no such route, a malformed form) in OpenAI's shape."""
    if error.status_code == 404:
        refusal: ServingError = NotFound(f"No such path: {request.method} {request.url.path}", code="unknown_path")
    elif error.status_code == 405:
        allow = sorted((error.headers or {})["Allow"].split(", "))
        refusal = MethodNotAllowed(f"{request.url.path} does not answer {request.method}", allow=allow)
    else:
        refusal = InvalidRequest(error.detail)
    return await _refused(request, refusal)


async def _broke(request: Request, error: Exception) -> Response:
    logger.error("request failed", exc_info=error, extra={"path": request.url.path})
    return await _refused(request, ServingError("Internal error; the server's log has it under this request's id."))
