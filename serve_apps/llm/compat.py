"""Everything we use of ray.serve.llm and vLLM that is not their public API, in one place.

``tests/serve_apps/llm/test_compat.py`` fails when an upgrade changes any of it.
"""

from typing import Any

from ray.llm._internal.serve.core.engine.protocol import LLMEngine

__all__ = ["LLMEngine", "outermost_middleware", "set_sampling_defaults"]

#: The serving objects of vLLM's app state that read ``default_sampling_params`` on every request.
_GENERATING = ("openai_serving_chat", "openai_serving_completion", "openai_serving_responses")


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
