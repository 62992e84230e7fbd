import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp.web
import numpy as np
import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from serve_apps.common import gateway_client
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
from serve_apps.common.gateway_client import Caller
from serve_apps.common.secrets import InternalCredential
from serve_apps.rag.gateway_client import EMBEDDING_BATCH, GatewayClient
from tests.serve_apps.gateway.servers import PATIENCE_S
from tests.serve_apps.rag.fake_gateway import FakeGateway, embedding, overloaded, refusal

CALLER = Caller("acme", "request-1")
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}

Check = Callable[[GatewayClient], Coroutine[Any, Any, None]]


@pytest.fixture
def ask(gateway_url: str, credential: InternalCredential) -> Callable[[Check], None]:
    """Runs a check with a client of the fake gateway."""

    def run(check: Check, timeout_s: float = PATIENCE_S) -> None:
        asyncio.run(_with_client(gateway_url, credential, check, timeout_s))

    return run


async def _with_client(url: str, credential: InternalCredential, check: Check, timeout_s: float = PATIENCE_S) -> None:
    client = GatewayClient(url, credential, timeout_s)
    try:
        await check(client)
    finally:
        await client.close()


@asynccontextmanager
async def answering(
    handle: Callable[[aiohttp.web.Request], Awaitable[aiohttp.web.StreamResponse]],
) -> AsyncIterator[str]:
    """A server that answers every POST with ``handle``; gives its URL."""
    app = aiohttp.web.Application()
    app.router.add_post("/{path:.*}", handle)
    runner = aiohttp.web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def test_texts_are_embedded_in_bounded_batches_and_in_order(gateway: FakeGateway, ask: Callable[[Check], None]) -> None:
    texts = [f"text number {number}" for number in range(2 * EMBEDDING_BATCH + 1)]

    async def check(client: GatewayClient) -> None:
        vectors = await client.embed("minilm", texts, CALLER)
        assert np.array_equal(vectors, [embedding(text) for text in texts])

    ask(check)
    bodies = gateway.bodies("/v1/embeddings")
    assert [len(body["input"]) for body in bodies] == [EMBEDDING_BATCH, EMBEDDING_BATCH, 1]
    assert {body["model"] for body in bodies} == {"minilm"}


def test_vectors_given_as_numbers_are_read_too(credential: InternalCredential) -> None:
    async def handle(_: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.json_response({"data": [{"index": 0, "embedding": [0.5, -1]}]})

    async def check(client: GatewayClient) -> None:
        [vector] = await client.embed("minilm", ["a"], CALLER)
        assert vector.dtype == np.float32
        assert vector.tolist() == [0.5, -1]

    async def run() -> None:
        async with answering(handle) as url:
            await _with_client(url, credential, check)

    asyncio.run(run())


def test_every_call_carries_the_credential_the_tenant_and_the_request_id(
    gateway: FakeGateway, ask: Callable[[Check], None]
) -> None:
    async def check(client: GatewayClient) -> None:
        await client.embed("minilm", ["a"], CALLER)
        await client.rerank("reranker", "a", ["a"], CALLER)
        await client.chat(CHAT, CALLER)

    ask(check)
    assert [each.path for each in gateway.asked] == ["/v1/embeddings", "/v1/rerank", "/v1/chat/completions"]
    for each in gateway.asked:
        assert each.headers["x-llm-internal"] == "internal-token"
        assert each.headers["x-llm-tenant"] == "acme"
        assert each.headers["x-request-id"] == "request-1"


def test_reranking_gives_scores_in_the_documents_order(ask: Callable[[Check], None]) -> None:
    async def check(client: GatewayClient) -> None:
        assert await client.rerank("reranker", "hot tea", ["ice", "hot hot tea", "tea"], CALLER) == [0, 3, 1]

    ask(check)


def test_a_chat_completion_comes_whole_or_as_the_streams_payloads(
    gateway: FakeGateway, ask: Callable[[Check], None]
) -> None:
    async def check(client: GatewayClient) -> None:
        whole = await client.chat(CHAT, CALLER)
        assert whole["choices"][0]["message"]["content"] == gateway.answer
        payloads = [payload async for payload in client.stream_chat(CHAT, CALLER)]
        assert payloads[0].startswith(b'{"id":"1","object":"chat.completion.chunk"')
        assert payloads[-1] == b"[DONE]"

    ask(check)
    assert [body["stream"] for body in gateway.bodies("/v1/chat/completions")] == [False, True]


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (refusal(400, "too long"), InvalidRequest, "too long"),
        (refusal(403, "not yours"), PermissionDenied, "not yours"),
        (refusal(413, "too large"), TooLarge, "too large"),
        (refusal(422, "odd"), InvalidRequest, "odd"),
        (refusal(429, "slow down"), RateLimited, "slow down"),
        (refusal(503, "starting"), Unavailable, "starting"),
        (refusal(504, "waited"), UpstreamTimeout, "waited"),
        (refusal(404, "no model chat; there are: a"), UpstreamFailed, "Model 'chat' failed."),
        (refusal(401, "no credential"), UpstreamFailed, "Model 'chat' failed."),
        (refusal(500, "Traceback (most recent call last)"), UpstreamFailed, "Model 'chat' failed."),
        (overloaded(), Unavailable, "Model 'chat' answered with status 503."),
        (PlainTextResponse("not json"), UpstreamFailed, "Model 'chat' gave an answer that cannot be read."),
        (PlainTextResponse("[]"), UpstreamFailed, "Model 'chat' gave an answer that cannot be read."),
    ],
)
def test_a_refusal_becomes_the_error_a_client_should_see(
    gateway: FakeGateway, ask: Callable[[Check], None], answer: Response, kind: type[ServingError], message: str
) -> None:
    gateway.down["/v1/chat/completions"] = answer

    async def check(client: GatewayClient) -> None:
        with pytest.raises(ServingError) as raised:
            await client.chat(CHAT, CALLER)
        assert type(raised.value) is kind
        assert raised.value.message == message

    ask(check)


@pytest.mark.parametrize(
    ("header", "seconds"), [({"retry-after": "7"}, 7), ({"retry-after": "soon"}, None), ({}, None)]
)
def test_a_refusal_keeps_its_retry_after(
    gateway: FakeGateway, ask: Callable[[Check], None], header: dict[str, str], seconds: int | None
) -> None:
    gateway.down["/v1/chat/completions"] = refusal(429, "slow down", header)

    async def check(client: GatewayClient) -> None:
        with pytest.raises(RateLimited) as raised:
            await anext(client.stream_chat(CHAT, CALLER))
        assert raised.value.retry_after_s == seconds

    ask(check)


@pytest.mark.parametrize(
    "answer",
    [{"data": []}, {"data": [{"index": 0}]}, {"data": [{"index": 0, "embedding": "?"}]}, {"data": None}, {}],
)
def test_vectors_that_cannot_be_read_are_the_models_failure(
    gateway: FakeGateway, ask: Callable[[Check], None], answer: dict[str, Any]
) -> None:
    gateway.down["/v1/embeddings"] = JSONResponse(answer)

    async def check(client: GatewayClient) -> None:
        with pytest.raises(UpstreamFailed, match="Model 'minilm' gave an answer that cannot be read"):
            await client.embed("minilm", ["a"], CALLER)

    ask(check)


def test_a_stream_that_ends_early_is_a_failure_after_what_came(
    gateway: FakeGateway, ask: Callable[[Check], None]
) -> None:
    gateway.ending = []

    async def check(client: GatewayClient) -> None:
        came = 0
        with pytest.raises(UpstreamFailed, match="broke off"):
            async for _ in client.stream_chat(CHAT, CALLER):
                came += 1
        assert came > 1

    ask(check)


def test_closing_a_stream_closes_the_connection(gateway: FakeGateway, ask: Callable[[Check], None]) -> None:
    gateway.endless = True

    async def check(client: GatewayClient) -> None:
        async with aclosing(client.stream_chat(CHAT, CALLER)) as payloads:
            await anext(payloads)
        assert await asyncio.to_thread(gateway.aborted.wait, PATIENCE_S)

    ask(check)


def test_a_model_that_does_not_begin_in_time_is_given_up(credential: InternalCredential) -> None:
    async def handle(request: aiohttp.web.Request) -> aiohttp.web.Response:
        await asyncio.sleep(PATIENCE_S)
        return aiohttp.web.Response()

    async def check(client: GatewayClient) -> None:
        with pytest.raises(UpstreamTimeout, match=r"Model 'chat' did not begin to answer within 0.2 s"):
            await client.chat(CHAT, CALLER)

    async def run() -> None:
        async with answering(handle) as url:
            await _with_client(url, credential, check, timeout_s=0.2)

    asyncio.run(run())


def test_a_gateway_that_is_not_there_is_unavailable(credential: InternalCredential) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed_port = taken.getsockname()[1]

    async def check(client: GatewayClient) -> None:
        with pytest.raises(Unavailable, match="Model 'chat' cannot be reached"):
            await client.chat(CHAT, CALLER)

    asyncio.run(_with_client(f"http://127.0.0.1:{closed_port}", credential, check))


def test_a_gateway_that_takes_no_connection_in_time_is_unavailable(
    credential: InternalCredential, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_client, "CONNECT_TIMEOUT_S", 0.2)

    async def check(client: GatewayClient) -> None:
        with pytest.raises(Unavailable, match="Model 'chat' cannot be reached"):
            await client.chat(CHAT, CALLER)

    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_connection(full.getsockname()):
        asyncio.run(_with_client("http://{}:{}".format(*full.getsockname()), credential, check))
