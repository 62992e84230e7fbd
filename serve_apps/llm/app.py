"""The front door of a model's application."""

from ray.serve import Application

from serve_apps.llm.config import LLMArgs
from serve_apps.llm.engine import llm_config, prefill_config


def build_app(args: LLMArgs) -> Application:
    """One model behind Ray Serve LLM's direct streaming: HAProxy sends bytes straight from vLLM's own server.

    Needs ``RAY_SERVE_ENABLE_HA_PROXY=1`` and ``RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING=1`` on every node.
    """
    # ray.serve.llm imports vLLM, which is in the image of the model's worker group only.
    from ray.serve.llm import LLMConfig, build_openai_app

    from serve_apps.llm.compat import build_pd_app

    config = LLMConfig(**llm_config(args))
    if (prefill := args.parallelism.prefill) is not None:
        return build_pd_app(LLMConfig(**prefill_config(args, prefill)), config)
    return build_openai_app({"llm_configs": [config]})
