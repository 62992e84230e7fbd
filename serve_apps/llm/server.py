"""The deployment of one model: ray.serve.llm's server, guarded, with settings that change in place."""

import tempfile
from pathlib import Path
from typing import Any

from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer

from serve_apps.common.config import accepted
from serve_apps.common.middleware import Guard
from serve_apps.common.protocol import TASK_PATHS
from serve_apps.common.secrets import InternalCredential
from serve_apps.llm import compat
from serve_apps.llm.adapters import Adapters, OnDemand
from serve_apps.llm.config import LLMSettings


def paths_of(llm_config: LLMConfig) -> frozenset[str]:
    """The public paths a model may answer, read back from the runner its engine arguments name.

    Whether a model with the generate runner hears is known to vLLM alone, which has the paths for audio only then.
    """
    engine = llm_config.engine_kwargs
    if engine.get("runner") != "pooling":
        return TASK_PATHS["generate"] | TASK_PATHS["transcribe"]
    return TASK_PATHS["embed" if engine.get("convert") == "embed" else "score"]


class VLLMServer(LLMServer):
    """ray.serve.llm's LLMServer; its HTTP app answers the task's public paths, and only to the gateway."""

    _settings: LLMSettings | None = None
    _adapters: Adapters | None = None

    async def __serve_build_asgi_app__(self) -> Any:
        """vLLM's own app behind the guard.

        vLLM's ``api_key`` would leave /invocations, /pooling, /metrics and more open; the guard leaves nothing.
        """
        credential = InternalCredential()
        credential.value()  # fail now, not at the first request
        paths = paths_of(self._llm_config)
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
        return app

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
