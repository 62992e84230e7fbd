"""Ray Serve as it comes, in front of the mock model: what the gateway is there to replace.

Two applications. ``build_llm_app`` is ray.serve.llm's own: its default ingress, its LLMServer with its 50 ms batches of
tokens, only the engine is ours. ``build_handle_app`` is what Serve's documentation shows: a FastAPI deployment that
streams from a model deployment by DeploymentHandle, token by token.
"""

from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from ray import serve
from ray.llm._internal.serve.core.engine.protocol import LLMEngine
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from bench.gateway.mock import WHOLE, Engines, Order, read


class MockEngine(LLMEngine):
    """The mock model in the place of vLLM's engine."""

    def __init__(self, llm_config: Any) -> None:  # noqa: ARG002
        self._engines = Engines()

    async def start(self) -> None:
        return None

    async def chat(self, request: Any, raw_request_info: Any = None) -> AsyncIterator[Any]:  # noqa: ARG002
        order = read(request.model_dump(include={"stream", "max_tokens", "seed", "stream_options"}))
        if order.stream:
            async for event in self._engines.tokens(order):
                yield event.decode()
            return
        from ray.llm._internal.serve.core.configs.openai_api_models import ChatCompletionResponse

        yield ChatCompletionResponse.model_validate(WHOLE)

    completions = embeddings = transcriptions = chat

    async def check_health(self) -> None:
        return None

    def routing_stats(self) -> dict[str, Any]:
        return {}

    async def resolve_lora(self, lora_model: Any) -> None:  # noqa: ARG002
        raise RuntimeError("the mock model has no adapters")

    async def reset_prefix_cache(self) -> None:
        return None


def build_llm_app(_: dict[str, Any]) -> Application:
    """ray.serve.llm with its defaults."""
    from ray.serve.llm import LLMConfig, build_openai_app

    config = LLMConfig(
        model_loading_config={"model_id": "mock", "model_source": "/nowhere"},
        accelerator_config={"kind": "cpu"},
        placement_group_config={"bundles": [{"CPU": 0.1}]},
        deployment_config={"ray_actor_options": {"num_cpus": 0}},
    )
    # One ingress replica, as there is one gateway; the default is two, and they would share the load.
    ingress = {"autoscaling_config": {"min_replicas": 1, "max_replicas": 1}, "ray_actor_options": {"num_cpus": 0.1}}
    return build_openai_app({"llm_configs": [config], "ingress_deployment_config": ingress})


@serve.deployment(max_ongoing_requests=100_000, ray_actor_options={"num_cpus": 0.1})
class Model:
    """The mock model behind a handle."""

    def __init__(self) -> None:
        self._engines = Engines()

    async def stream(self, order: Order) -> AsyncIterator[str]:
        """The events of one stream."""
        async for event in self._engines.tokens(order):
            yield event.decode()

    async def whole(self) -> dict[str, Any]:
        """A complete answer."""
        return WHOLE


api = FastAPI()


@serve.deployment(max_ongoing_requests=100_000, ray_actor_options={"num_cpus": 0.1})
@serve.ingress(api)
class Front:
    """The HTTP side."""

    def __init__(self, model: DeploymentHandle) -> None:
        self._model = model

    @api.post("/v1/chat/completions")
    async def chat(self, request: Request) -> Any:
        """One chat completion."""
        order = read(orjson.loads(await request.body()))
        if not order.stream:
            return JSONResponse(await self._model.whole.remote())
        events = self._model.options(stream=True).stream.remote(order)
        return StreamingResponse(events, media_type="text/event-stream")


def build_handle_app(_: dict[str, Any]) -> Application:
    """Two deployments and a handle."""
    # Serve's decorators have made deployments of the classes, which their types do not say.
    front: Any = Front
    model: Any = Model
    application: Application = front.bind(model.bind())
    return application
