"""Everything we use of ray.serve.llm and vLLM that is not their public API, in one place.

``tests/serve_apps/llm/test_compat.py`` fails when an upgrade changes any of it.
"""

from pathlib import Path
from typing import Any

from ray._common.usage import usage_lib
from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.serve.core.engine.protocol import LLMEngine
from ray.llm._internal.serve.core.ingress import router as ingress_router
from ray.llm._internal.serve.core.ingress.builder import (
    _build_direct_streaming_llm_deployment,
    _build_openai_ingress_request_router,
)
from ray.llm._internal.serve.core.server import llm_server
from ray.llm._internal.serve.engines.vllm import vllm_models
from ray.llm._internal.serve.serving_patterns.prefill_decode.builder import PDServingArgs
from ray.serve import Application
from ray.serve.llm import LLMConfig, build_llm_deployment

from serve_apps.llm import folder, peft
from serve_apps.llm.router import LLMRouter

__all__ = [
    "LLMEngine",
    "LoraEngine",
    "NodePreparation",
    "build_pd_app",
    "look_at_models_in_this_process",
    "outermost_middleware",
    "report_usage_only_if_wanted",
    "route_without_torch",
    "set_sampling_defaults",
    "work_in_the_engines_process",
]

#: The serving objects of vLLM's app state that read ``default_sampling_params`` on every request.
_GENERATING = ("openai_serving_chat", "openai_serving_completion", "openai_serving_responses")


def build_pd_app(prefill: LLMConfig, decode: LLMConfig) -> Application:
    """As ray.serve.llm's build_pd_openai_app, with the servers that the configs name; it would take unguarded ones."""
    args = PDServingArgs(prefill_config=prefill, decode_config=decode)  # which also keeps the ports of the two apart
    server = _build_direct_streaming_llm_deployment(
        args.decode_config, bind_kwargs={"prefill_server": build_llm_deployment(args.prefill_config)}
    )
    router = _build_openai_ingress_request_router(server=server, llm_config=args.decode_config)
    return server._with_ingress_request_router(router)


def route_without_torch() -> None:
    """Have ray.serve.llm's builders take our router."""
    ingress_router.LLMRouter = LLMRouter


def work_in_the_engines_process() -> None:
    """Have engines of this process that have one worker, on a CPU, compute in the engine's own process, as on one GPU.

    Ray asks for a process for that worker: a second import of vLLM, 0.7 GB, and a core that polls for a second after
    each step. vLLM asks for it, too, unless ``VLLM_ENABLE_V1_MULTIPROCESSING`` is 0, as in the chart's pods.
    """
    vllm_models.EXECUTOR_BACKEND_MP = "uni"


def look_at_models_in_this_process() -> None:
    """Have vLLM import the class of a model that runs on a CPU in this process, to see what it can do.

    It starts a process for that, which imports vLLM once more, so that this one does not touch a GPU; and what it saw
    it keeps in a cache that a new pod has not.
    """
    from vllm.model_executor.models import registry

    registry._run_in_subprocess = lambda look: look()


def report_usage_only_if_wanted() -> None:
    """Have servers of this process gather no usage statistics where Ray is told to send none, as in the chart's pods.

    They would gather them all the same, and wait for it between the engine's start and the first request: for an actor
    on the head that imports vLLM, which takes it 1 GB, or fails in an image without vLLM.
    """
    if not usage_lib.usage_stats_enabled():
        llm_server.push_telemetry_report_for_all_models = lambda **_: None


class NodePreparation(CallbackBase):
    """What is done on a model's nodes before its engine starts, by ray.serve.llm's hook: buckets are downloaded there.

    For any other source Ray would have a process on every node find out that there is nothing to do, after an import of
    vLLM: 16 seconds of a core, for which the engine waits.
    """

    async def on_before_node_init(self) -> None:
        """Leave that out where nothing is downloaded; a folder without a model is refused before vLLM looks for it.

        Raises:
            FileNotFoundError: The model's folder is not there, or has no model in it.
        """
        engine = self.llm_config.get_engine_config()
        if engine.mirror_config is not None:
            return
        self.ctx.run_init_node = False
        path = Path(engine.actual_hf_model_id)
        if path.is_absolute():  # and no model on the Hub
            folder.check(path, config_elsewhere="hf_config_path" in engine.engine_kwargs)


def outermost_middleware(app: Any, middleware: type, **options: Any) -> None:
    """Wrap vLLM's FastAPI app, which has built its middleware stack already, in one more middleware."""
    app.middleware_stack = None
    app.add_middleware(middleware, **options)


def set_sampling_defaults(engine: Any, defaults: dict[str, Any]) -> None:
    """Make ``defaults`` the sampling parameters of requests that do not set them, over the model's own.

    vLLM reads the dict on every request, so the next one sees the change. Engines that do not generate are left alone.
    """
    state = getattr(engine, "_app_state", None)
    for name in _GENERATING:
        if (serving := getattr(state, name, None)) is not None:
            serving.default_sampling_params = serving.model_config.get_diff_sampling_param() | defaults


class LoraEngine:
    """A vLLM engine with LoRA, as ``serve_apps.llm.adapters`` wants one."""

    def __init__(self, engine: Any) -> None:
        """``engine``: Ray's, started."""
        self._client = engine._engine_client
        self._models = engine._oai_models

    def base(self, max_rank: int) -> peft.Base:
        """What the engine's model takes."""
        model = self._models.model_config
        inside = getattr(model.hf_text_config, "intermediate_size", None)  # a list where layers differ
        return peft.Base(
            max_rank,
            model.get_hidden_size(),
            model.get_total_num_hidden_layers(),
            inside if isinstance(inside, int) else None,
        )

    async def load(self, name: str, version: str, folder: Path) -> None:
        """As vLLM does for its own resolvers: the engine takes it in, then requests find it."""
        from vllm.lora.request import LoRARequest

        request = LoRARequest(lora_name=version, lora_int_id=self._models.lora_id_counter.inc(1), lora_path=str(folder))
        await self._client.add_lora(request)
        self._models.lora_requests[name] = request

    def unload(self, name: str) -> None:
        """Requests find it no more; the engine lets go of it when it needs the room."""
        self._models.lora_requests.pop(name, None)
