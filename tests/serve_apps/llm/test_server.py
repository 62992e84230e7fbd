"""What vLLM 0.29 has and what of it can be reached: its own routers, with everything on that can be on."""

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import BaseModel, ValidationError
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer
from starlette.routing import BaseRoute
from uvicorn.protocols.http import auto
from vllm.config import ProfilerConfig
from vllm.entrypoints.launchers.api_server.routers import register_api_routers

from serve_apps.common.errors import MethodNotAllowed, NotFound
from serve_apps.common.gathering import GatheringProtocol
from serve_apps.common.middleware import Guard
from serve_apps.common.protocol import TASK_PATHS, Task
from serve_apps.common.secrets import InternalCredential
from serve_apps.gateway.routing import CONTROL_PATHS, MODEL_PATHS, kind_of
from serve_apps.llm import compat
from serve_apps.llm.config import LLMSettings, Sampling
from serve_apps.llm.server import UNDIVIDED, VLLMServer, is_one_cpu_worker, paths_of
from tests.serve_apps.llm.test_compat import DIVIDED

#: vLLM's tasks of a model of ours, and what Ray gives vLLM for it.
VLLM_TASKS: dict[Task, tuple[str, ...]] = {
    "generate": ("generate",),
    "embed": ("embed",),
    "score": ("classify",),
    "transcribe": ("transcription", "realtime", "generate"),
}
ENGINE: dict[Task, dict[str, Any]] = {
    "generate": {},
    "embed": {"runner": "pooling", "convert": "embed"},
    "score": {"runner": "pooling"},
    "transcribe": {},
}
#: Paths of control that the issue names; the test below is about all there are.
NOTORIOUS = {
    *("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/sleep", "/wake_up", "/start_profile", "/server_info"),
    *("/metrics", "/docs", "/invocations", "/pooling", "/scale_elastic_ep", "/collective_rpc", "/update_weights"),
}


def test_a_models_server_is_one_that_gathers_what_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Server(VLLMServer):
        def __init__(self) -> None:
            self._llm_config = LLMConfig(model_loading_config={"model_id": "m"})

        def __del__(self) -> None: ...  # Serve awaits Ray's; here nobody would

    started: list[type] = []

    async def start(_: LLMServer) -> None:
        started.append(auto.AutoHTTPProtocol)

    monkeypatch.setattr(LLMServer, "start", start)
    monkeypatch.setattr(auto, "AutoHTTPProtocol", auto.AutoHTTPProtocol)
    asyncio.run(Server().start())
    assert started == [GatheringProtocol]


@pytest.mark.parametrize(("kind", "looks"), [("cpu", 1), ("gpu", 0)])
def test_only_where_there_is_no_gpu_vllm_looks_at_the_model_in_the_replicas_process(
    monkeypatch: pytest.MonkeyPatch, kind: str, looks: int
) -> None:
    class Server(VLLMServer):
        def __init__(self) -> None:
            self._llm_config = LLMConfig(model_loading_config={"model_id": "m"}, accelerator_config={"kind": kind})

        def __del__(self) -> None: ...  # Serve awaits Ray's; here nobody would

    async def start(_: LLMServer) -> None: ...

    looked: list[None] = []
    monkeypatch.setattr(LLMServer, "start", start)
    monkeypatch.setattr(auto, "AutoHTTPProtocol", auto.AutoHTTPProtocol)
    monkeypatch.setattr(compat, "work_in_the_engines_process", lambda: None)
    monkeypatch.setattr(compat, "look_at_models_in_this_process", lambda: looked.append(None))
    asyncio.run(Server().start())
    assert len(looked) == looks


@pytest.mark.parametrize(
    ("kind", "engine", "alone"),
    [
        ("cpu", {}, True),
        ("cpu", {"tensor_parallel_size": 1, "data_parallel_size": 1}, True),
        ("cpu", {"tensor_parallel_size": 2}, False),
        ("cpu", {"pipeline_parallel_size": 2}, False),
        ("cpu", {"data_parallel_size": 2}, False),
        ("gpu", {}, False),
    ],
)
def test_one_worker_on_a_cpu_is_told_from_several(kind: str, engine: dict[str, Any], alone: bool) -> None:
    config = LLMConfig(model_loading_config={"model_id": "m"}, accelerator_config={"kind": kind}, engine_kwargs=engine)
    assert is_one_cpu_worker(config) is alone


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns on what opens more of vLLM's endpoints."""
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")


def vllm_app(task: Task) -> FastAPI:
    """vLLM's HTTP app for a model that does ``task``, without an engine behind it."""
    tasks = VLLM_TASKS[task]
    model = SimpleNamespace(get_pooling_task=lambda _: tasks[0], hf_config=SimpleNamespace(num_labels=1))
    app = FastAPI()
    app.state.args = Namespace(tokens_only=False, profiler_config=ProfilerConfig(profiler="cuda"))
    pooling = model if task in ("embed", "score") else None
    register_api_routers(app.state.args, app, tasks, pooling)
    return app


def methods(route: BaseRoute) -> set[str]:
    return set(getattr(route, "methods", None) or {"GET", "POST"})


def paths(app: FastAPI) -> set[tuple[str, str]]:
    return {(method, getattr(route, "path", "")) for route in app.routes for method in methods(route)}


def served(path: str) -> str:
    """A path as a client would write it."""
    return path.replace("{response_id}", "resp_1")


def shapes(kind: Any) -> list[type[BaseModel]]:
    """The models of which ``kind`` is a union."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [shape for part in get_args(kind) for shape in shapes(part)]


@pytest.mark.parametrize("task", list(VLLM_TASKS))
def test_vllm_has_every_path_of_a_task_and_reads_the_model_from_its_body(task: Task) -> None:
    posts = {
        route.path: route for route in vllm_app(task).routes if isinstance(route, APIRoute) and "POST" in route.methods
    }
    for path in TASK_PATHS[task]:
        bodies = [shape for body in posts[path].dependant.body_params for shape in shapes(body.field_info.annotation)]
        assert bodies, path
        assert all("model" in shape.model_fields for shape in bodies), path


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("task", list(VLLM_TASKS))
def test_nothing_else_of_vllm_is_reached_through_the_gateway(task: Task) -> None:
    hidden = {(method, path) for method, path in paths(vllm_app(task)) if path not in MODEL_PATHS}
    assert len(hidden) > 30
    for method, path in hidden:
        if path in CONTROL_PATHS:  # the gateway's own list of models and description
            continue
        with pytest.raises((NotFound, MethodNotAllowed)):
            kind_of(method, served(path))


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("task", list(VLLM_TASKS))
def test_nothing_else_of_vllm_is_reached_past_the_guard_of_its_replica(task: Task, tmp_path: Any) -> None:
    (tmp_path / "token").write_text("secret")
    allowed = paths_of(LLMConfig(model_loading_config={"model_id": "m"}, engine_kwargs=ENGINE[task]))
    app = vllm_app(task)
    app.add_middleware(
        Guard,
        credential=InternalCredential(tmp_path / "token"),
        allows=lambda method, path: method == "POST" and path in allowed,
    )
    client = TestClient(app, headers={"x-llm-internal": "secret"})
    for method, path in paths(app):
        if (method, path) not in {("POST", name) for name in allowed}:
            answer = client.request(method, served(path))
            assert answer.status_code == 404, (method, path)
            assert method == "HEAD" or answer.json()["error"]["code"] == "unknown_path", (method, path)


@pytest.mark.usefixtures("everything")
def test_what_must_never_be_reached_is_among_what_vllm_has() -> None:
    everywhere = {path for task in VLLM_TASKS for _, path in paths(vllm_app(task))}
    assert everywhere >= NOTORIOUS
    assert not NOTORIOUS & frozenset().union(*TASK_PATHS.values())


def test_a_body_says_where_a_kv_cache_is_only_on_paths_that_ray_divides_or_we_close() -> None:
    """vLLM would fetch it from there, be it another tenant's. On divided paths it is taken out of the body."""
    told = {
        route.path
        for route in vllm_app("generate").routes
        if isinstance(route, APIRoute)
        for body in route.dependant.body_params
        for shape in shapes(body.field_info.annotation)
        if "kv_transfer_params" in shape.model_fields
    }
    assert told & TASK_PATHS["generate"] == DIVIDED | UNDIVIDED


@pytest.mark.parametrize(
    ("task", "others"),
    [
        ("generate", {"/v1/embeddings", "/rerank"}),
        ("embed", {"/v1/chat/completions", "/rerank"}),
        ("score", {"/v1/embeddings"}),
    ],
)
def test_a_replica_answers_the_paths_of_its_task_and_no_others(task: Task, others: set[str]) -> None:
    allowed = paths_of(LLMConfig(model_loading_config={"model_id": "m"}, engine_kwargs=ENGINE[task]))
    assert TASK_PATHS[task] <= allowed
    assert not others & allowed


def answered(**fields: Any) -> tuple[Any, list[Any]]:
    """A server whose engine answers with ``fields``, and the requests that this gets."""
    requests: list[Any] = []

    async def completions(request: Any) -> AsyncIterator[Any]:
        async def answers() -> AsyncIterator[Any]:
            requests.append(request)
            yield SimpleNamespace(**fields)

        return answers()

    settings = LLMSettings(sampling=Sampling(max_tokens=99, temperature=0.5))
    config = SimpleNamespace(model_id="m")
    return SimpleNamespace(_llm_config=config, _settings=settings, completions=completions), requests


def test_a_prompt_is_answered_as_the_settings_say_unless_the_call_does() -> None:
    server, requests = answered(choices=[SimpleNamespace(text="upon a time")])
    assert asyncio.run(VLLMServer.generate(server, "Once", top_p=0.5)) == "upon a time"
    (request,) = requests
    assert (request.model, request.prompt, request.top_p) == ("m", "Once", 0.5)
    assert (request.max_tokens, request.temperature) == (99, 0.5)
    server._settings = None
    asyncio.run(VLLMServer.generate(server, "Once"))
    assert (requests[-1].max_tokens, requests[-1].top_p) == (512, None)


def test_what_the_engine_refuses_is_an_error_with_its_words() -> None:
    server, _ = answered(error=SimpleNamespace(message="the prompt is too long"))
    with pytest.raises(ValueError, match="the prompt is too long"):
        asyncio.run(VLLMServer.generate(server, "Once"))


def test_a_misspelt_parameter_does_not_reach_the_engine() -> None:
    server, requests = answered()
    with pytest.raises(ValidationError, match="temprature"):
        asyncio.run(VLLMServer.generate(server, "Once", temprature=0))
    assert not requests


def test_a_replica_that_generates_may_hear_too() -> None:
    allowed = paths_of(LLMConfig(model_loading_config={"model_id": "m"}, engine_kwargs={}))
    assert TASK_PATHS["transcribe"] <= allowed
