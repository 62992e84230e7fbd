"""The deployment that tells HAProxy which replica of a model is next."""

from serve_apps.common.imports import left_out

# For a function that downloads weights, which no router calls, and Serve has one of each model's on every node with
# replicas: 650 MB each with PyTorch, 190 without.
with left_out("torch"):
    from ray.llm._internal.serve.core.ingress import router


class LLMRouter(router.LLMRouter):
    """ray.serve.llm's, in a process without PyTorch: it is by this class's name that a replica finds this module."""
