"""The mock model as a Serve application, where a vLLM model would stand: behind HAProxy, its own ASGI app."""

from typing import Any

import orjson
from ray import serve
from ray.serve import Application

from bench.gateway.mock import WHOLE_BODY, Engines, read
from serve_apps.common.gathering import gather_writes

STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8")]
WHOLE_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(WHOLE_BODY)).encode())]


class MockServer:
    """Chat completions as an ASGI app."""

    def __init__(self) -> None:
        self._engines = Engines()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
            return
        pieces, more = [], True
        while more:
            message = await receive()
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        order = read(orjson.loads(b"".join(pieces)))
        if not order.stream:
            await send({"type": "http.response.start", "status": 200, "headers": WHOLE_HEADERS})
            await send({"type": "http.response.body", "body": WHOLE_BODY})
            return
        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        async for event in self._engines.tokens(order):
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class MockModel:
    """One replica, whose server gathers what it writes as those of the chart's models do."""

    def __init__(self) -> None:
        gather_writes()

    def __serve_build_asgi_app__(self) -> MockServer:
        """The ASGI app Serve hands requests to."""
        return MockServer()


def build_app(_: dict[str, Any]) -> Application:
    """The mock model; nothing limits it but the machine."""
    deployment = serve.deployment(name="MockModel", max_ongoing_requests=100_000, ray_actor_options={"num_cpus": 0.1})
    application: Application = deployment(serve.ingress()(MockModel)).bind()
    return application
