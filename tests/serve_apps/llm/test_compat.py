"""Holds Ray and vLLM to the private names we use; an upgrade that changes one fails here first."""

import asyncio
import inspect
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from ray.llm._internal.common.utils.download_utils import download_model_files
from ray.llm._internal.serve.core.ingress.builder import build_openai_app
from ray.llm._internal.serve.core.server import llm_server
from ray.llm._internal.serve.core.server.llm_server import LLMServer
from ray.llm._internal.serve.engines.vllm import vllm_models
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.llm._internal.serve.serving_patterns.data_parallel.builder import build_dp_openai_app
from ray.llm._internal.serve.serving_patterns.prefill_decode import pd_server
from ray.llm._internal.serve.serving_patterns.prefill_decode.builder import build_pd_openai_app
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import DPServer, PDDecodeServer
from vllm.config import ModelConfig
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.serving import BaseServing
from vllm.entrypoints.serve.lora.api_router import attach_router
from vllm.entrypoints.serve.utils.api_utils import get_max_tokens
from vllm.lora.request import LoRARequest
from vllm.model_executor.models import registry
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.core.kv_cache_utils import _gen_lora_extra_hash_keys

from serve_apps.llm import compat
from serve_apps.llm.config import LLMArgs
from serve_apps.llm.engine import llm_config
from serve_apps.llm.peft import Base
from serve_apps.llm.server import DataParallelVLLMServer, DecodeVLLMServer, VLLMServer
from tests.serve_apps.llm.test_config import llm_args

#: The paths whose prompts another replica may read.
DIVIDED = {"/v1/chat/completions", "/v1/completions"}


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


def test_rays_builder_for_ranks_does_what_ours_does_with_a_server_of_ours() -> None:
    """Theirs names DPServer, so the guard would have no place; ours is that server's child."""
    ranks = inspect.getsource(build_dp_openai_app)
    assert "_build_direct_streaming_llm_deployment(" in ranks
    assert "deployment_cls=DPServer," in ranks
    assert "_build_direct_streaming_llm_deployment(llm_configs[0])" in inspect.getsource(build_openai_app)
    assert DataParallelVLLMServer.__init__ is DPServer.__init__
    assert DataParallelVLLMServer.get_deployment_options.__func__ is DPServer.get_deployment_options.__func__
    guarded, ours = (vars(VLLMServer)[method] for method in ("__serve_build_asgi_app__", "reconfigure"))
    assert DataParallelVLLMServer.__serve_build_asgi_app__ is guarded
    assert DataParallelVLLMServer.reconfigure is ours


def test_rays_builder_for_prefill_does_what_ours_does_with_servers_of_ours() -> None:
    """Theirs names PDDecodeServer, so the guard would have no place; ours is that server's child."""
    theirs, ours = inspect.getsource(build_pd_openai_app), inspect.getsource(compat.build_pd_app)
    for step in (
        "_build_direct_streaming_llm_deployment(",
        "_build_openai_ingress_request_router(",
        "_with_ingress_request_router(",
        'bind_kwargs={"prefill_server":',
        "build_llm_deployment",
    ):
        assert step in theirs, step
        assert step in ours, step
    assert DecodeVLLMServer.__init__ is PDDecodeServer.__init__
    assert DecodeVLLMServer.__mro__.index(VLLMServer) < DecodeVLLMServer.__mro__.index(PDDecodeServer)


def test_ray_divides_chat_and_completions_and_no_other_path() -> None:
    routes = inspect.getsource(pd_server.PDOrchestratorMixin.__serve_build_asgi_app__)
    assert set(re.findall(r'@app.post\("(.+?)"\)', routes)) == DIVIDED
    for method in ("chat", "completions"):  # where we take out what a client may not say
        assert f"await self.{method}(body" in routes


def test_a_cpu_engine_computes_in_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_models, "EXECUTOR_BACKEND_MP", vllm_models.EXECUTOR_BACKEND_MP)
    config = LLMConfig(model_loading_config={"model_id": "m"}, accelerator_config={"kind": "cpu"})
    assert config.get_engine_config().get_initialization_kwargs()["distributed_executor_backend"] == "mp"
    compat.work_in_the_engines_process()
    assert config.get_engine_config().get_initialization_kwargs()["distributed_executor_backend"] == "uni"
    asked = inspect.getsource(CpuPlatform.check_and_update_config)
    assert 'os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "1") == "1"' in asked


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, at the import of a model
def test_what_a_cpus_model_can_do_is_seen_without_another_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Started(Exception):
        pass

    def start(command: list[str], **_: object) -> None:
        assert command[-2:] == ["-m", "vllm.model_executor.models.registry"]
        raise Started

    monkeypatch.setattr(registry, "_run_in_subprocess", registry._run_in_subprocess)
    monkeypatch.setattr(registry.subprocess, "run", start)
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path))
    model = registry._LazyRegisteredModel("vllm.model_executor.models.llama", "LlamaForCausalLM")
    with pytest.raises(Started):
        model.inspect_model_cls()
    compat.look_at_models_in_this_process()
    assert model.inspect_model_cls().is_text_generation_model


@pytest.mark.parametrize(("variable", "reported"), [("0", []), ("1", [["config"]])])
def test_usage_is_gathered_only_where_it_is_wanted(
    monkeypatch: pytest.MonkeyPatch, variable: str, reported: list[list[str]]
) -> None:
    gathered: list[list[str]] = []
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", variable)
    monkeypatch.setattr(
        llm_server, "push_telemetry_report_for_all_models", lambda all_models: gathered.append(all_models)
    )
    compat.report_usage_only_if_wanted()

    async def start() -> None:
        pass

    server: Any = SimpleNamespace(engine=SimpleNamespace(start=start), _llm_config="config")
    asyncio.run(LLMServer._start_engine(server))
    assert gathered == reported


def prepared(source: str, monkeypatch: pytest.MonkeyPatch, **engine: Any) -> bool:
    """Whether Ray still has a process on each node prepare for a model from ``source``, as the engine asks."""
    monkeypatch.setattr(vllm_models.VLLMEngineConfig, "get_or_create_pg", lambda _: None)
    args = LLMArgs.model_validate(llm_args(source=source, engine=engine))
    callback = LLMConfig(**llm_config(args)).get_or_create_callback()
    assert callback is not None
    asyncio.run(callback.run_callback("on_before_node_init"))
    return bool(callback.ctx.run_init_node)


def test_nodes_are_prepared_for_what_is_downloaded_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLM_SERVING_MODELS", str(tmp_path))
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim" / "config.json").write_text("{}")
    assert prepared("s3://bucket/chat", monkeypatch)
    assert prepared("s3://bucket/chat", monkeypatch, load_format="runai_streamer")
    assert not prepared("hf://org/chat", monkeypatch)
    assert not prepared("pvc://claim", monkeypatch)
    with pytest.raises(Exception, match=rf"{tmp_path}/claim/nowhere is not there"):
        prepared("pvc://claim/nowhere", monkeypatch)


def test_the_engine_asks_before_it_prepares_nodes() -> None:
    start = inspect.getsource(VLLMEngine.start)
    order = [start.index(part) for part in ('"on_before_node_init"', "ctx.run_init_node:", "initialize_node(")]
    assert order == sorted(order)


def test_of_what_is_not_downloaded_that_process_would_only_tell_the_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert download_model_files("org/chat", None) == "org/chat"


def test_ray_keeps_vllms_state_where_we_look_for_it() -> None:
    assert "self._app_state = state" in inspect.getsource(VLLMEngine.start)


def test_ray_builds_the_http_app_in_the_method_we_extend() -> None:
    assert inspect.iscoroutinefunction(getattr(LLMServer, "__serve_build_asgi_app__"))  # noqa: B009  # name mangling


def lora_engine() -> tuple[compat.LoraEngine, Any, list[LoRARequest]]:
    """An engine with vLLM's registry of adapters; what the engine itself was given."""
    given: list[LoRARequest] = []

    async def add_lora(request: LoRARequest) -> bool:
        given.append(request)
        return True

    model = SimpleNamespace(
        get_hidden_size=lambda: 16,
        get_total_num_hidden_layers=lambda: 2,
        hf_text_config=SimpleNamespace(intermediate_size=32),
    )
    client = SimpleNamespace(model_config=model, renderer=None, input_processor=None, add_lora=add_lora)
    models = OpenAIServingModels(client, [])
    return compat.LoraEngine(SimpleNamespace(_engine_client=client, _oai_models=models)), models, given


def test_vllm_finds_an_adapter_that_we_load_under_the_name_requests_have() -> None:
    engine, models, given = lora_engine()
    asyncio.run(engine.load("sql", "sql@2", Path("/adapters/1")))
    asyncio.run(engine.load("other", "other", Path("/adapters/2")))
    request = models.lora_requests["sql"]
    assert (request.lora_name, request.lora_path) == ("sql@2", "/adapters/1")
    assert [one.lora_int_id for one in given] == [1, 2]
    serving = SimpleNamespace(models=models)
    assert BaseServing._maybe_get_adapters(serving, SimpleNamespace(model="sql")) is request
    engine.unload("sql")
    engine.unload("sql")
    assert list(models.lora_requests) == ["other"]


def test_what_a_model_takes_is_read_off_vllms_configuration() -> None:
    assert lora_engine()[0].base(8) == Base(max_rank=8, hidden_size=16, layers=2, intermediate_size=32)
    for method in ("get_hidden_size", "get_total_num_hidden_layers"):
        assert hasattr(ModelConfig, method)


def test_vllm_keeps_what_it_computed_by_the_name_that_changes_with_the_weights() -> None:
    assert "request.lora_request.lora_name" in inspect.getsource(_gen_lora_extra_hash_keys)


def test_ray_keeps_vllms_engine_and_models_where_we_look_for_them() -> None:
    source = inspect.getsource(sys.modules[VLLMEngine.__module__])
    assert "self._engine_client = " in source
    assert "self._oai_models = " in source


def test_without_its_switch_vllm_loads_no_path_by_itself_and_has_no_route_that_does() -> None:
    assert "envs.VLLM_ALLOW_RUNTIME_LORA_UPDATING\n            and request.model" in inspect.getsource(
        BaseServing._check_model
    )
    app = FastAPI()
    attach_router(app)
    assert not any("lora" in getattr(route, "path", "") for route in app.routes)
