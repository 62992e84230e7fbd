"""Holds Ray and vLLM to the private names we use; an upgrade that changes one fails here first."""

import inspect
from types import SimpleNamespace

from fastapi import FastAPI
from fastapi.testclient import TestClient
from ray.llm._internal.serve.core.server.llm_server import LLMServer
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.serve.utils.api_utils import get_max_tokens

from serve_apps.llm import compat


class _Stamp:
    def __init__(self, app, *, value):  # type: ignore[no-untyped-def]
        self.app, self.value = app, value

    async def __call__(self, scope, receive, send):  # type: ignore[no-untyped-def]
        async def stamped(message):  # type: ignore[no-untyped-def]
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-stamp", self.value))
            await send(message)

        await self.app(scope, receive, stamped)


def test_a_middleware_can_be_put_around_an_app_that_is_already_built() -> None:
    app = FastAPI()
    app.middleware_stack = app.build_middleware_stack()
    compat.outermost_middleware(app, _Stamp, value=b"seen")
    assert TestClient(app).get("/nowhere").headers["x-stamp"] == "seen"


def test_sampling_defaults_go_over_the_models_own() -> None:
    own = SimpleNamespace(get_diff_sampling_param=lambda: {"top_k": 20, "top_p": 1})
    chat = SimpleNamespace(default_sampling_params={}, model_config=own)
    engine = SimpleNamespace(_app_state=SimpleNamespace(openai_serving_chat=chat))
    compat.set_sampling_defaults(engine, {"top_p": 0.9})
    assert chat.default_sampling_params == {"top_k": 20, "top_p": 0.9}
    compat.set_sampling_defaults(engine, {})
    assert chat.default_sampling_params == {"top_k": 20, "top_p": 1}


def test_an_engine_that_does_not_generate_is_left_alone() -> None:
    compat.set_sampling_defaults(SimpleNamespace(_app_state=SimpleNamespace()), {"top_p": 0.9})


def test_vllm_reads_the_defaults_at_every_request() -> None:
    for serving in (OpenAIServingChat, OpenAIServingCompletion):
        source = inspect.getsource(serving)
        assert source.count("self.default_sampling_params") >= 3, serving
    assert "default_sampling_params" in inspect.signature(get_max_tokens).parameters


def test_ray_keeps_vllms_state_where_we_look_for_it() -> None:
    assert "self._app_state = state" in inspect.getsource(VLLMEngine.start)


def test_ray_builds_the_http_app_in_the_method_we_extend() -> None:
    assert inspect.iscoroutinefunction(getattr(LLMServer, "__serve_build_asgi_app__"))  # noqa: B009  # name mangling
