"""From a model's arguments to what ray.serve.llm's LLMConfig takes. Pure: plain data in, plain data out."""

from typing import Any

from serve_apps.llm.config import LLMArgs, Parallelism, Prefill
from serve_apps.llm.sources import resolve

#: What Serve does when the chart's ``deployments:`` say nothing else. Ray's own defaults for LLM deployments (10^9
#: ongoing and 10^9 targeted requests) would never scale and never refuse.
FALLBACK_LIMITS: dict[str, Any] = {
    "max_ongoing_requests": 64,
    "max_queued_requests": 64,
    "backpressure_config": {"status_code": 429, "retry_after_s": 1},
    "autoscaling_config": {"min_replicas": 1, "max_replicas": 1, "target_ongoing_requests": 48},
    # Longer than the longest stream: a replica that is replaced finishes what it began.
    "graceful_shutdown_timeout_s": 120,
}

#: How a prompt's KV cache gets from the replicas that read it to those that answer: from GPU to GPU.
KV_TRANSFER = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}

#: vLLM's runner and conversion for each task.
_RUNNERS: dict[str, dict[str, Any]] = {
    "generate": {},
    "transcribe": {},
    "embed": {"runner": "pooling", "convert": "embed"},
    "score": {"runner": "pooling"},
}


#: Formats by which vLLM reads a bucket itself, rather than files that were downloaded before.
_STREAMED = frozenset({"runai_streamer", "runai_streamer_sharded"})


def engine_kwargs(args: LLMArgs) -> dict[str, Any]:
    """vLLM's engine arguments for ``args``: the task's, the accelerators', and what the values say."""
    derived = {
        **_RUNNERS[args.task],
        "tensor_parallel_size": args.accelerator.count,
        # The docs routes would be refused by the guard anyway; without them they do not exist.
        "disable_fastapi_docs": True,
    }
    if args.nodes > 1:
        derived["pipeline_parallel_size"] = args.nodes
    if args.parallelism.data > 1:
        derived["data_parallel_size"] = args.parallelism.data
    if args.parallelism.experts:
        derived["enable_expert_parallel"] = True
    if args.parallelism.prefill is not None:
        derived["kv_transfer_config"] = dict(KV_TRANSFER)
    if args.lora is not None:
        derived |= {"enable_lora": True, "max_loras": args.lora.max_loras, "max_lora_rank": args.lora.max_rank}
        if args.lora.max_cpu_loras is not None:
            derived["max_cpu_loras"] = args.lora.max_cpu_loras
    if (revision := resolve(args.source).revision) is not None:
        derived |= {"revision": revision, "tokenizer_revision": revision}
    return derived | args.engine.kwargs()


def deployment_config(args: LLMArgs) -> dict[str, Any]:
    """Serve's options for the model's deployment, before the ``deployments:`` of the Serve config override them."""
    options = {
        **FALLBACK_LIMITS,
        "max_surge_percent": args.surge_percent,
        # The engine's workers own the bundles; the replica itself only moves bytes.
        "ray_actor_options": {"num_cpus": 0},
    }
    if args.placement.label_selector:
        options["placement_group_bundle_label_selector"] = [args.placement.label_selector]
    return options


def model_source(args: LLMArgs) -> str:
    """Where ray.serve.llm gets the model from.

    It downloads from S3 with boto3 unless told to use Arrow, which all images have, and boto3 only some.
    """
    location = resolve(args.source).location
    streamed = args.engine.load_format in _STREAMED
    return f"pyarrow-{location}" if location.startswith("s3://") and not streamed else location


def llm_config(args: LLMArgs) -> dict[str, Any]:
    """The fields of ray.serve.llm's LLMConfig for ``args``.

    ``accelerator_type`` stays unset: the worker group's label in ``placement.label_selector`` chooses the nodes, so
    that the autoscaler can tell from the group's spec, with no node running, which group to grow.
    """
    on_cpu = args.accelerator.type == "cpu"
    return {
        "model_loading_config": {"model_id": args.name, "model_source": model_source(args)},
        "engine_kwargs": engine_kwargs(args),
        "accelerator_config": {"kind": "cpu" if on_cpu else "gpu"},
        "placement_group_config": {"strategy": args.placement.strategy, "bundles": args.placement.bundles},
        "deployment_config": deployment_config(args),
        "server_cls": f"serve_apps.llm.server:{_server(args.parallelism)}",
        "callback_config": {"callback_class": "serve_apps.llm.compat:NodePreparation"},
        # A token goes on when it is there; Ray would wait 50 ms for more. Where vLLM itself streams, nothing reads it.
        "experimental_configs": {"stream_batching_interval_ms": 0},
    }


def prefill_config(args: LLMArgs, prefill: Prefill) -> dict[str, Any]:
    """As `llm_config`, for the replicas that read prompts. They are called by those that answer, never over HTTP."""
    config = llm_config(args)
    return {
        **config,
        "engine_kwargs": config["engine_kwargs"] | prefill.engine.kwargs(),
        "server_cls": "ray.serve.llm.deployment:PDPrefillServer",
    }


def _server(parallelism: Parallelism) -> str:
    if parallelism.data > 1:
        return "DataParallelVLLMServer"
    return "DecodeVLLMServer" if parallelism.prefill else "VLLMServer"
