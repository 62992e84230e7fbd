"""The HTTP routes of the RAG app: documents in, answers out."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve_apps.common import overflow, responses
from serve_apps.common.api import Query, Search
from serve_apps.common.disconnect import CancelOnDisconnect
from serve_apps.common.errors import InvalidRequest, NotFound, TooLarge, UpstreamTimeout
from serve_apps.common.gateway_client import Caller, caller_of
from serve_apps.common.middleware import ASGIApp, Guard
from serve_apps.common.protocol import DEGRADED_HEADER
from serve_apps.common.secrets import InternalCredential
from serve_apps.rag import bodies, conversation, filters, prompt, unfound
from serve_apps.rag.answer import Answer
from serve_apps.rag.conversation import Conversation
from serve_apps.rag.gateway_client import GatewayClient
from serve_apps.rag.ingestion import Ingested
from serve_apps.rag.observation import Observer, observed
from serve_apps.rag.pipelines import Pipelines, RunningPipeline
from serve_apps.rag.retriever import SURVIVABLE, Retrieval

#: A way to answer: how the answer leaves, and the request to the model, or what is said if none is asked.
Attempt = tuple[Answer, dict[str, Any] | str]
#: Makes one, since most are never needed.
Way = Callable[[], Attempt]

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

    app = Starlette(
        routes=[
            Route("/v1/rag/{pipeline}/documents", routes.documents, methods=["GET", "POST"]),
            Route("/v1/rag/{pipeline}/documents/{document:path}", routes.delete_document, methods=["DELETE"]),
            Route("/v1/rag/{pipeline}/query", routes.query, methods=["POST"]),
            Route("/v1/rag/{pipeline}/search", routes.search, methods=["POST"]),
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
        ],
        lifespan=lifespan,
        exception_handlers=responses.HANDLERS,
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
            return _ingested(await pipeline.ingester.ingest(given, caller_of(request.headers)))
        stored = await pipeline.store.documents()
        listed = [{"id": each.id, "chunks": each.chunks, "metadata": each.metadata} for each in stored]
        return responses.json({"documents": listed})

    async def delete_document(self, request: Request) -> Response:
        """A document and its chunks out."""
        pipeline = self._pipeline(request)
        document = request.path_params["document"]
        chunks = await pipeline.store.delete(document)
        if not chunks:
            raise NotFound(f"no such document {document!r} in pipeline {pipeline.name!r}", code="document_not_found")
        return responses.json({"id": document, "chunks": chunks, "status": "deleted"})

    async def search(self, request: Request) -> Response:
        """Chunks that a question finds, without an answer."""
        pipeline = self._pipeline(request)
        search = bodies.parse(Search, await bodies.read_json(request))
        where = filters.parse(search.filter)
        found = await pipeline.retriever.find(search.query.strip(), caller_of(request.headers), search.limit, where)
        return responses.json({"results": found.results(), "degraded": found.degraded}, headers=_flags(found.degraded))

    async def query(self, request: Request) -> Response:
        """A question, answered from the documents."""
        caller = caller_of(request.headers)
        pipeline = self._pipeline(request)
        query = bodies.parse(Query, await bodies.read_json(request))
        body: dict[str, Any] = {"filter": query.filter}
        if query.stream:
            body["stream_options"] = {"include_usage": True}
        ways = await self._prepare(
            pipeline, Conversation(query.question.strip()), body, caller, query.top_k, query.filter
        )

        async def respond(answer: Answer, completion: dict[str, Any] | str) -> Response:
            if not query.stream:
                return _answered(answer.query(await self._complete(pipeline, completion, caller)), answer)
            payloads = self._stream(pipeline, completion, body, caller)
            return await responses.streamed(answer.query_events(payloads), payloads, _flags(answer.retrieval.degraded))

        return await self._first(pipeline, ways, respond)

    async def chat(self, request: Request) -> Response:
        """A conversation, answered from the documents; the pipeline poses as a model."""
        caller = caller_of(request.headers)
        body = await bodies.read_json(request)
        if not isinstance(body, dict) or not isinstance(body.get("model"), str):
            raise InvalidRequest("model: required, the pipeline's name", param="model")
        pipeline = self._pipelines.find(body["model"], caller.tenant)
        ways = await self._prepare(pipeline, conversation.read(body), body, caller, given_filter=body.get("filter"))

        async def respond(answer: Answer, completion: dict[str, Any] | str) -> Response:
            if not body.get("stream"):
                return _answered(answer.chat(await self._complete(pipeline, completion, caller)), answer)
            payloads = self._stream(pipeline, completion, body, caller)
            return await responses.streamed(answer.chat_events(payloads), payloads, _flags(answer.retrieval.degraded))

        return await self._first(pipeline, ways, respond)

    def _pipeline(self, request: Request) -> RunningPipeline:
        return self._pipelines.find(request.path_params["pipeline"], caller_of(request.headers).tenant)

    async def _prepare(
        self,
        pipeline: RunningPipeline,
        said: Conversation,
        body: dict[str, Any],
        caller: Caller,
        top_k: int | None = None,
        given_filter: Any = None,
    ) -> list[Way]:
        """Retrieve; the ways to answer, the best first."""
        settings = pipeline.settings
        model = conversation.model_for(settings, said)
        where = filters.parse(given_filter)
        retrieval = await pipeline.retriever.retrieve(said.question, caller, top_k, where, said.history)
        must_be_json = bool(body.get("response_format"))
        # What an image shows may be what the question is about.
        may_say = settings.unfound == "say" and not must_be_json and not said.images
        if may_say and not retrieval.sources and retrieval.searched:
            said_instead = unfound.UNFOUND_IN_PART if retrieval.in_part else unfound.UNFOUND
            return [lambda: (Answer(pipeline.name, retrieval), said_instead)]
        # A notice would break the syntax of an answer that must be JSON; header and body still flag it.
        notice = "" if must_be_json else prompt.notice(retrieval)

        def attempt(model: str, retrieval: Retrieval) -> Attempt:
            links = None if settings.links == "any" else prompt.addresses(settings.system_prompt, said, retrieval)
            messages = prompt.messages(settings.system_prompt, said, retrieval, settings.max_history_words)
            request = conversation.request_for(settings, model, body, messages)
            return Answer(pipeline.name, retrieval, notice, links), request

        seen: list[Way] = []
        if settings.vision is not None and not said.images:  # a question's own images are what it is about
            retrieval = await pipeline.retriever.illustrated(retrieval)
            if retrieval.has_figures:
                seen = [partial(attempt, settings.vision, retrieval)]
                retrieval = retrieval.without_figures()
        return [*seen, *(partial(attempt, model, each) for each in retrieval.ever_fewer())]

    async def _first(
        self,
        pipeline: RunningPipeline,
        ways: Sequence[Way],
        respond: Callable[[Answer, dict[str, Any] | str], Awaitable[Response]],
    ) -> Response:
        """The response of the first way that fits: its model may refuse figures, and more than its window holds."""
        for way in ways[:-1]:
            answer, request = way()
            try:
                return await _in_time(pipeline, answer, respond(answer, request))
            except (*SURVIVABLE, InvalidRequest, TooLarge) as error:
                told = {"pipeline": pipeline.name, "reason": error.message}
                if answer.retrieval.has_figures:
                    logger.warning("answer without figures", extra=told)
                    self._observer.degraded(pipeline.name, "vision")
                elif overflow.is_said(error.message):
                    logger.warning("answer from fewer sources; lower maxContextWords", extra=told)
                else:
                    raise
        return await respond(*ways[-1]())

    async def _complete(
        self, pipeline: RunningPipeline, completion: dict[str, Any] | str, caller: Caller
    ) -> dict[str, Any]:
        if isinstance(completion, str):
            return unfound.completion(completion)
        with observed(self._observer, pipeline.name, "generate"):
            return await self._gateway.chat(completion, caller)

    async def _stream(
        self, pipeline: RunningPipeline, completion: dict[str, Any] | str, body: dict[str, Any], caller: Caller
    ) -> AsyncGenerator[bytes, None]:
        if isinstance(completion, str):
            async for payload in unfound.payloads(completion, body):
                yield payload
            return
        with observed(self._observer, pipeline.name, "generate"):
            async with aclosing(self._gateway.stream_chat(completion, caller)) as payloads:
                async for payload in payloads:
                    yield payload


async def _in_time(pipeline: RunningPipeline, answer: Answer, response: Awaitable[Response]) -> Response:
    """The response; from figures only within the time that ``vision`` has.

    Raises:
        UpstreamTimeout: it took longer.
    """
    if not answer.retrieval.has_figures:
        return await response
    limit_s = pipeline.settings.vision_timeout_s
    try:
        async with asyncio.timeout(limit_s):
            return await response
    except TimeoutError as error:
        raise UpstreamTimeout(f"vision took longer than {limit_s:g} s") from error


def _ingested(documents: Sequence[Ingested]) -> Response:
    """What became of each document; 207 if some failed. Then the same request again brings in only those."""
    failures = [each.error for each in documents if each.error is not None]
    reports = []
    for each in documents:
        report: dict[str, Any] = {"id": each.id, "chunks": each.chunks, "status": each.status}
        reports.append(report | each.error.body() if each.error else report)
    retry_after_s = max((error.retry_after_s or 0 for error in failures), default=0)
    headers = {"retry-after": str(retry_after_s)} if retry_after_s else {}
    return responses.json({"documents": reports}, 207 if failures else 200, headers)


def _flags(degraded: Sequence[str]) -> dict[str, str]:
    return {DEGRADED_HEADER: ",".join(degraded)} if degraded else {}


def _answered(body: dict[str, Any], answer: Answer) -> Response:
    return responses.json(body, headers=_flags(answer.retrieval.degraded))
