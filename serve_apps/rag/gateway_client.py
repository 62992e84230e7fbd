"""The models, as the gateway offers them: embeddings, reranking, chat completions.

Every call carries the internal credential and the tenant it is made for, so versions, limits and metering apply to a
pipeline's calls as to anyone's. A failed call becomes the ``ServingError`` that a pipeline's client should see.
"""

import asyncio
import base64
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np
import orjson

from serve_apps.common.errors import (
    InvalidRequest,
    PermissionDenied,
    RateLimited,
    ServingError,
    TooLarge,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from serve_apps.common.protocol import INTERNAL_HEADER, REQUEST_ID_HEADER, TENANT_HEADER
from serve_apps.common.secrets import InternalCredential
from serve_apps.rag import sse
from serve_apps.rag.vector_store import Vector

#: Texts per embedding request: enough to fill a GPU's batch, small enough to be answered in seconds on a CPU.
EMBEDDING_BATCH = 64

CONNECT_TIMEOUT_S = 10

#: vLLM cuts an input at the model's window instead of refusing the whole batch for one long text.
_TO_WINDOW = {"truncate_prompt_tokens": -1}

#: What a refusal by the gateway means for the pipeline's client. 401 and 404 are not here: the credential and the
#: model's name are this server's, so they are its fault.
_REFUSALS: dict[int, type[ServingError]] = {
    400: InvalidRequest,
    403: PermissionDenied,
    413: TooLarge,
    422: InvalidRequest,
    429: RateLimited,
    503: Unavailable,
    504: UpstreamTimeout,
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a request is made for."""

    tenant: str
    request_id: str


class GatewayClient:
    """Calls models through the gateway. One per process."""

    def __init__(self, base_url: str, credential: InternalCredential, timeout_s: float) -> None:
        """``timeout_s``: how long a model may take to begin its answer, and a stream may stay silent, in seconds."""
        self._base_url = base_url
        self._credential = credential
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def embed(self, model: str, texts: Sequence[str], caller: Caller) -> list[Vector]:
        """One vector per text, asked for in batches."""
        vectors: list[Vector] = []
        for begin in range(0, len(texts), EMBEDDING_BATCH):
            batch = list(texts[begin : begin + EMBEDDING_BATCH])
            request = {"model": model, "input": batch, "encoding_format": "base64", **_TO_WINDOW}
            answer = await self._json("/v1/embeddings", request, caller)
            try:
                ordered = sorted(answer["data"], key=lambda each: int(each["index"]))
                vectors += [_vector(each["embedding"]) for each in ordered]
            except (KeyError, TypeError, ValueError) as error:
                raise _nonsense(model) from error
        if len(vectors) != len(texts):
            raise _nonsense(model)
        return vectors

    async def rerank(self, model: str, query: str, documents: Sequence[str], caller: Caller) -> list[float]:
        """How relevant each document is to ``query``, in their order; higher is better."""
        request = {"model": model, "query": query, "documents": list(documents), **_TO_WINDOW}
        answer = await self._json("/v1/rerank", request, caller)
        try:
            scores = {int(each["index"]): float(each["relevance_score"]) for each in answer["results"]}
            return [scores[index] for index in range(len(documents))]
        except (KeyError, TypeError, ValueError) as error:
            raise _nonsense(model) from error

    async def chat(self, request: dict[str, Any], caller: Caller) -> dict[str, Any]:
        """A whole chat completion."""
        return await self._json("/v1/chat/completions", {**request, "stream": False}, caller)

    async def stream_chat(self, request: dict[str, Any], caller: Caller) -> AsyncGenerator[bytes, None]:
        """The payloads of a streamed chat completion, ``[DONE]`` included, as they come.

        Closing the iterator closes the connection, which makes the gateway abort the generation.

        Raises:
            ServingError: before the first payload, as for every call; later, ``UpstreamFailed`` if the stream broke.
        """
        async with self._post("/v1/chat/completions", {**request, "stream": True}, caller) as response:
            try:
                async for payload in sse.payloads(response.content.iter_any()):
                    yield payload
                    if payload == sse.DONE:
                        return
            except (aiohttp.ClientError, TimeoutError) as error:
                raise UpstreamFailed("The answer broke off: the model's stream ended early.") from error
        raise UpstreamFailed("The answer broke off: the model's stream ended early.")

    async def close(self) -> None:
        """Break off what is still running."""
        if self._session is not None:
            await self._session.close()

    async def _json(self, path: str, request: dict[str, Any], caller: Caller) -> dict[str, Any]:
        async with self._post(path, request, caller) as response:
            try:
                answer = orjson.loads(await response.read())
            except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
                raise _nonsense(request["model"]) from error
        if not isinstance(answer, dict):
            raise _nonsense(request["model"])
        return answer

    @asynccontextmanager
    async def _post(self, path: str, request: dict[str, Any], caller: Caller) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response that has begun, with status 200."""
        headers = {
            "content-type": "application/json",
            INTERNAL_HEADER: self._credential.value(),
            TENANT_HEADER: caller.tenant,
            REQUEST_ID_HEADER: caller.request_id,
        }
        model = request["model"]
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._connections().post(
                    self._base_url + path, data=orjson.dumps(request), headers=headers
                )
        except TimeoutError as error:
            raise UpstreamTimeout(f"Model {model!r} did not begin to answer within {self._timeout_s:g} s.") from error
        except aiohttp.ClientError as error:
            logger.error("gateway unreachable", extra={"error": str(error), "model": model})
            raise Unavailable(f"Model {model!r} cannot be reached; try again.", retry_after_s=1) from error
        async with response:
            if response.status != 200:
                raise await _refusal(model, response)
            yield response

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # No bound here: the deployment's max_ongoing_requests is one. No reuse: a POST on a connection that
                # the proxy is just closing fails, and a new one to this node's own proxy costs next to nothing.
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=self._timeout_s),
            )
        return self._session


def _vector(embedding: str | list[float]) -> Vector:
    """From base64 of little-endian float32, as asked for, or from numbers, as some servers answer anyway."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
    return np.asarray(embedding, dtype=np.float32)


def _nonsense(model: str) -> UpstreamFailed:
    return UpstreamFailed(f"Model {model!r} gave an answer that cannot be read.")


async def _refusal(model: str, response: aiohttp.ClientResponse) -> ServingError:
    """The gateway's refusal, as the pipeline's client should see it."""
    try:
        error = orjson.loads(await response.read())["error"]
        message, code = str(error["message"]), error.get("code")
    except (aiohttp.ClientError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        message, code = f"Model {model!r} answered with status {response.status}.", None
    kind = _REFUSALS.get(response.status)
    if kind is None:
        logger.error("gateway refused", extra={"model": model, "status": response.status, "error": message})
        return UpstreamFailed(f"Model {model!r} failed.")
    retry_after = response.headers.get("retry-after", "")
    return kind(message, code=code, retry_after_s=int(retry_after) if retry_after.isdecimal() else None)
