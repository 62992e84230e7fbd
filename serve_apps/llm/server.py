"""The deployment of one model: ray.serve.llm's server, guarded, with settings that change in place."""

import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from serve_apps.common import asgi
from serve_apps.common.config import accepted
from serve_apps.common.disconnect import CancelOnDisconnect
from serve_apps.common.gathering import gather_writes
from serve_apps.common.imports import uncollected
from serve_apps.common.middleware import ASGIApp, Guard
from serve_apps.common.protocol import INTERNAL_HEADER, TASK_PATHS
from serve_apps.common.secrets import InternalCredential
from serve_apps.llm.adapters import Adapters, OnDemand
from serve_apps.llm.config import LLMSettings, Sampling

with uncollected():
    from ray.serve.llm import LLMConfig
    from ray.serve.llm.deployment import DPServer, LLMServer, PDDecodeServer
    from ray.serve.llm.openai_api_models import CompletionRequest

    from serve_apps.llm import compat

#: The paths on which ray.serve.llm asks no other replica to read the prompt.
UNDIVIDED = frozenset({"/v1/messages", "/v1/responses"})
#: Tokens that `generate` answers at most where neither the call nor the settings say; OpenAI's 16 would cut it short.
GENERATED_TOKENS = 512


def paths_of(llm_config: LLMConfig) -> frozenset[str]:
    """The public paths a model may answer, read back from the runner its engine arguments name.

    Whether a model with the generate runner hears is known to vLLM alone, which has the paths for audio only then.
    """
    engine = llm_config.engine_kwargs
    if engine.get("runner") != "pooling":
        return TASK_PATHS["generate"] | TASK_PATHS["transcribe"]
    return TASK_PATHS["embed" if engine.get("convert") == "embed" else "score"]


def is_one_cpu_worker(llm_config: LLMConfig) -> bool:
    """Whether the model runs on a CPU, undivided."""
    divided = (f"{by}_parallel_size" for by in ("tensor", "pipeline", "data"))
    return llm_config.accelerator_config.kind == "cpu" and all(
        llm_config.engine_kwargs.get(size, 1) == 1 for size in divided
    )


class VLLMServer(LLMServer):
    """ray.serve.llm's LLMServer; its HTTP app answers the task's public paths, and only to the gateway."""

    _settings: LLMSettings | None = None
    _adapters: Adapters | None = None
    _app: ASGIApp
    """vLLM's own, guarded."""

    async def start(self) -> None:
        """Start the engine."""
        gather_writes()
        compat.report_usage_only_if_wanted()
        if self._llm_config.accelerator_config.kind == "cpu":
            compat.look_at_models_in_this_process()
        if is_one_cpu_worker(self._llm_config):
            compat.work_in_the_engines_process()
        await super().start()

    async def __serve_build_asgi_app__(self) -> Any:
        """vLLM's own app behind the guard.

        vLLM's ``api_key`` would leave /invocations, /pooling, /metrics and more open; the guard leaves nothing.
        """
        credential = InternalCredential()
        credential.value()  # fail now, not at the first request
        paths = self._paths()
        app = await super().__serve_build_asgi_app__()
        if self._llm_config.engine_kwargs.get("enable_lora"):
            self._adapters = self._new_adapters()
            compat.outermost_middleware(app, OnDemand, adapters=self._adapters)
        compat.outermost_middleware(
            app,
            Guard,
            credential=credential,
            allows=lambda method, path: method == "POST" and path in paths,
        )
        self._app = app
        return app

    async def answer(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """A line of a batch on this replica's own cluster, answered as over HTTP: ``path`` and ``body`` of a request.

        Yields one ``status`` and ``answer``, since Ray Data asks deployments for streams.
        """
        headers = {INTERNAL_HEADER: InternalCredential().value()}
        status, content = await asgi.post(self._app, request["path"], request["body"].encode(), headers)
        yield {"status": status, "answer": content.decode()}

    def _paths(self) -> frozenset[str]:
        return paths_of(self._llm_config)

    def _new_adapters(self) -> Adapters:
        kwargs = self._llm_config.engine_kwargs
        self._files = tempfile.TemporaryDirectory(prefix="adapters-")
        engine = compat.LoraEngine(self.engine)
        adapters = Adapters(
            self._llm_config.model_id,
            engine,
            engine.base(kwargs["max_lora_rank"]),
            in_memory=kwargs.get("max_cpu_loras", kwargs["max_loras"]),
            root=Path(self._files.name),
        )
        if self._settings is not None:
            adapters.follow(self._settings.adapters)
        return adapters

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply new settings to the running engine; Serve calls it after the start and on every change."""
        self._settings = accepted(LLMSettings, user_config, self._settings)
        if self._adapters is not None:
            self._adapters.follow(self._settings.adapters)
        compat.set_sampling_defaults(self.engine, self._settings.sampling.model_dump(exclude_none=True))

    async def generate(self, prompt: str, **sampling: Any) -> str:
        """How the model goes on from ``prompt``, for code in the same Ray cluster (`serve_apps.llm.client`).

        ``sampling``: fields of `Sampling`; what is left out is as the settings say.

        Raises:
            ValueError: there is no such field, or vLLM refuses the request.
        """
        settings = self._settings or LLMSettings()
        asked = {"max_tokens": GENERATED_TOKENS}
        for given in (settings.sampling, Sampling.model_validate(sampling)):
            asked |= given.model_dump(exclude_none=True)
        request = CompletionRequest(model=self._llm_config.model_id, prompt=prompt, **asked)
        (answer,) = [one async for one in await self.completions(request)]
        if (error := getattr(answer, "error", None)) is not None:
            raise ValueError(error.message)
        text: str = answer.choices[0].text
        return text


class DataParallelVLLMServer(VLLMServer, DPServer):
    """One data parallel rank: a replica that Serve starts, places and restarts together with the others of its gang.

    As in ray.serve.llm's own build_dp_openai_app, which would leave no room for the guard.
    """


class DecodeVLLMServer(VLLMServer, PDDecodeServer):
    """A replica that has prompts read by ray.serve.llm's PDPrefillServer, fetches their KV cache and answers.

    A body may tell vLLM where to fetch a KV cache from. Only our own engines may say that, so it is taken out, and the
    paths where Ray does not look into the body are closed.
    """

    async def __serve_build_asgi_app__(self) -> Any:
        """As of every model; Ray's routes in it do not notice that a client has gone, vLLM's do."""
        app = await super().__serve_build_asgi_app__()
        compat.outermost_middleware(app, CancelOnDisconnect)
        return app

    def _paths(self) -> frozenset[str]:
        return TASK_PATHS["generate"] - UNDIVIDED

    async def chat(self, request: Any, raw_request_info: Any = None) -> Any:
        """A chat completion: first the prompt elsewhere, then the answer here."""
        request.kv_transfer_params = None
        return await super().chat(request, raw_request_info)

    async def completions(self, request: Any, raw_request_info: Any = None) -> Any:
        """A completion, likewise."""
        request.kv_transfer_params = None
        return await super().completions(request, raw_request_info)
