"""The front door of a model's application."""

from pathlib import Path

from ray.serve import Application

from serve_apps.common.imports import uncollected
from serve_apps.llm import folder
from serve_apps.llm.config import LLMArgs
from serve_apps.llm.engine import engine_kwargs, llm_config, model_source, prefill_config
from serve_apps.llm.sources import default_models_root


def build_app(args: LLMArgs) -> Application:
    """One model behind Ray Serve LLM's direct streaming: HAProxy sends bytes straight from vLLM's own server.

    Needs ``RAY_SERVE_ENABLE_HA_PROXY=1`` and ``RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING=1`` on every node.

    Raises:
        FileNotFoundError: The claim or image is mounted here and has no model at the source's path. Replicas would find
            that out, too, but each after an import of vLLM.
    """
    folder.check_where_mounted(
        Path(model_source(args)), Path(default_models_root()), config_elsewhere="hf_config_path" in engine_kwargs(args)
    )
    # ray.serve.llm imports vLLM, which is in the image of the model's worker group only.
    with uncollected():
        from ray.serve.llm import LLMConfig, build_openai_app

        from serve_apps.llm import compat

    compat.route_without_torch()
    config = LLMConfig(**llm_config(args))
    if (prefill := args.parallelism.prefill) is not None:
        return compat.build_pd_app(LLMConfig(**prefill_config(args, prefill)), config)
    return build_openai_app({"llm_configs": [config]})
