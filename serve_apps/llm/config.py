"""The arguments of one model's application (an entry of ``models:`` in values, placed by the chart)."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from serve_apps.common.config import AdapterName, Config, Name, UpstreamSpelling

#: Ray's names for accelerators (ray.serve.llm refuses others), and ``cpu``.
AcceleratorType = Literal[
    "cpu", "T4", "L4", "L40S", "A10G", "A100-40G", "A100-80G", "H100", "H200", "B200", "B300", "GB200", "GB300"
]

#: An image by a tag or a digest: what has neither would be another one tomorrow.
IMAGE_PATTERN = r"[^/@#\s]+/[^@#\s]+(:[^/@:#\s]+|@sha256:[0-9a-f]{64})"
SOURCE_PATTERN = (
    r"^(hf://[^/@]+/[^/@]+(@[^/@]+)?|s3://.+|gs://.+|pvc://[^/]+(/.+)?|oci://" + IMAGE_PATTERN + r"(#[^/].*)?)$"
)


class Accelerator(Config):
    """What one replica runs on."""

    type: AcceleratorType
    """The GPU, in Ray's spelling, or ``cpu``."""
    count: int = Field(1, ge=1, le=64)
    """GPUs (CPU cores for ``cpu``) of one replica on each of its nodes; more than one is tensor parallel."""


class Placement(Config):
    """Where one replica's engine workers go: a Ray placement group."""

    strategy: Literal["STRICT_PACK", "PACK"] = "STRICT_PACK"
    """STRICT_PACK keeps all workers on one node, where tensor parallelism is fast; PACK is for several nodes."""
    bundles: list[dict[str, float]] = Field(min_length=1)
    """One bundle of resources per engine worker."""
    label_selector: dict[str, str] = Field(default_factory=dict)
    """Ray node labels every bundle needs: the worker group's accelerator profile."""


class EngineArgs(BaseModel):
    """vLLM's engine arguments, in vLLM's spelling (https://docs.vllm.ai/en/stable/configuration/engine_args/).

    The arguments most deployments set are typed here, so that a wrong value fails at ``helm install``. Any other one
    goes under ``extra`` as it is and is checked by vLLM when the app is built.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    max_model_len: int | None = Field(None, ge=1)
    """Tokens of context (prompt and answer); unset: what the model's config says."""
    max_num_seqs: int | None = Field(None, ge=1)
    """Sequences in one batch at most; more throughput, more KV cache."""
    max_num_batched_tokens: int | None = Field(None, ge=1)
    """Tokens of one engine step at most."""
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    """Part of the GPU's memory vLLM may take; vLLM's default is 0.9."""
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] | None = None
    """Weights and activations; unset: the model's own. ``float32`` for CPUs without instructions for bfloat16, which
    take four times as long to read a prompt in it."""
    quantization: str | None = None
    """For example ``fp8`` or ``awq``; unset: what the model's config says."""
    kv_cache_dtype: str | None = None
    """``fp8`` halves the KV cache's memory."""
    enforce_eager: bool | None = None
    """No CUDA graphs: faster start, slower tokens."""
    enable_prefix_caching: bool | None = None
    """Reuse the KV cache of shared prompt beginnings; vLLM's default is on."""
    enable_chunked_prefill: bool | None = None
    """Split long prompts so that they do not stall other streams; vLLM's default is on."""
    load_format: str | None = None
    """How weights are read, for example ``runai_streamer``: straight from a bucket to the GPU (docs/weights.md)."""
    enable_auto_tool_choice: bool | None = None
    """Let the model call tools; needs tool_call_parser."""
    tool_call_parser: str | None = None
    """The parser of the model's family, for example ``hermes``."""
    reasoning_parser: str | None = None
    """The parser of the model's reasoning format."""
    chat_template: str | None = None
    """A Jinja chat template in place of the model's own."""
    trust_remote_code: bool | None = None
    """Run Python code that comes with the weights. Only for sources you control."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Any other vLLM argument, verbatim."""

    @field_validator("extra")
    @classmethod
    def _owned_elsewhere(cls, extra: dict[str, Any]) -> dict[str, Any]:
        owned = {
            "model": "source",
            "served_model_name": "the model's key",
            "tensor_parallel_size": "accelerator.count",
            "pipeline_parallel_size": "nodes",
            "data_parallel_size": "parallelism.data",
            "enable_expert_parallel": "parallelism.experts",
            "distributed_executor_backend": "accelerator.type",
            "runner": "task",
            "convert": "task",
            "api_key": "security (the gateway holds the keys)",
            "enable_lora": "lora",
            "max_loras": "lora.maxLoras",
            "max_cpu_loras": "lora.maxCpuLoras",
            "max_lora_rank": "lora.maxRank",
            "lora_modules": "lora.adapters",
        }
        for key, instead in owned.items():
            if key in extra:
                raise ValueError(f"extra.{key}: not set here; set {instead}")
        return extra

    def kwargs(self) -> dict[str, Any]:
        """What to hand to vLLM: the typed arguments that are set, and ``extra``.

        Raises:
            ValueError: an argument stands in both places.
        """
        typed = self.model_dump(exclude_none=True, exclude={"extra"})
        if both := sorted(typed.keys() & self.extra.keys()):
            raise ValueError(f"engine.extra.{both[0]}: also set as engine.{both[0]}; keep one")
        return typed | self.extra


class Prefill(Config):
    """Replicas that compute the KV cache of prompts, and hand it to those that answer."""

    engine: EngineArgs = EngineArgs()
    """vLLM's engine arguments that are others here than in the model's ``engine``."""


class Parallelism(Config):
    """How a model is split beyond tensors (``accelerator.count``) and layers (``nodes``)."""

    data: int = Field(1, ge=1, le=64)
    """Data parallel ranks of a replica, each with accelerator.count GPUs and a share of the requests. Their engines
    step together; for a mixture of experts, whose experts lie across all ranks."""
    experts: bool = False
    """Expert parallel: each GPU has whole experts rather than a slice of every one."""
    prefill: Prefill | None = None
    """Replicas that read prompts for those that answer; unless set, each replica does both."""


class Autoscaling(UpstreamSpelling):
    """Ray Serve's autoscaling, in Ray's spelling (https://docs.ray.io/en/latest/serve/advanced-guides/advanced-autoscaling.html)."""

    min_replicas: int | None = Field(None, ge=0)
    """Replicas at least; 0 holds a request while the first replica starts."""
    initial_replicas: int | None = Field(None, ge=0)
    """Replicas at the first deployment."""
    max_replicas: int | None = Field(None, ge=1)
    """Replicas at most."""
    target_ongoing_requests: float | None = Field(None, gt=0)
    """Requests a replica should have at a time; keep it below maxOngoingRequests."""
    upscale_delay_s: float | None = Field(None, ge=0)
    """Seconds above the target before replicas are added."""
    downscale_delay_s: float | None = Field(None, ge=0)
    """Seconds below the target before replicas are taken away."""
    downscale_to_zero_delay_s: float | None = Field(None, ge=0)
    """Seconds without a request before the last replica goes."""
    upscaling_factor: float | None = Field(None, gt=0)
    """Multiplies each step up."""
    downscaling_factor: float | None = Field(None, gt=0)
    """Multiplies each step down."""
    metrics_interval_s: float | None = Field(None, gt=0)
    """Seconds between reports of a replica."""
    look_back_period_s: float | None = Field(None, gt=0)
    """Seconds over which reports are averaged."""
    aggregation_function: Literal["mean", "max", "min"] | None = None
    """How reports within the look-back period are combined."""
    policy: dict[str, Any] | None = None
    """A policy of your own: policy_function and policy_kwargs."""


class Sampling(UpstreamSpelling):
    """Defaults for requests that do not say, in OpenAI's and vLLM's spelling."""

    temperature: float | None = Field(None, ge=0, le=2)
    """0 is greedy."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Nucleus sampling."""
    top_k: int | None = Field(None, ge=-1)
    """-1 or 0: all tokens."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Tokens below this part of the best one's probability are left out."""
    repetition_penalty: float | None = Field(None, gt=0)
    """Above 1 discourages repeats."""
    max_tokens: int | None = Field(None, ge=1)
    """Tokens of an answer at most; without a default an answer may fill the context."""


class LoraSlots(Config):
    """The room that a model's engine keeps for LoRA adapters."""

    max_loras: int = Field(4, ge=1)
    """Adapters in one batch at most; each takes GPU memory, used or not."""
    max_cpu_loras: int | None = Field(None, ge=1)
    """Adapters kept in the host's memory at most, the least recently used of which go; maxLoras unless set."""
    max_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 16
    """The largest rank an adapter may have; memory grows with it, whatever rank adapters have."""

    @model_validator(mode="after")
    def _holds_a_batch(self) -> "LoraSlots":
        if self.max_cpu_loras is not None and self.max_cpu_loras < self.max_loras:
            raise ValueError(f"maxCpuLoras: below maxLoras ({self.max_loras}), got {self.max_cpu_loras}; set more")
        return self


class AdapterSources(Config):
    """Where a model's LoRA adapters are. Each is fetched and loaded when it is asked for first."""

    directory: str | None = Field(None, pattern=SOURCE_PATTERN)
    """A folder (pvc://claim/path, oci://image, s3://, gs:// or hf://org/name) whose folders are adapters."""
    named: dict[AdapterName, Annotated[str, Field(pattern=SOURCE_PATTERN)]] = Field(default_factory=dict)
    """Adapters by name, and where each is. They go before those of the directory."""


class LLMSettings(Config):
    """A model's ``user_config``: applied in place to running replicas, no restart."""

    sampling: Sampling = Sampling()
    """Defaults for requests that do not say."""
    adapters: AdapterSources = AdapterSources()
    """Where LoRA adapters are, for a model that has ``lora``."""


class LLMArgs(Config):
    """What one model's app needs to start; a change replaces its replicas."""

    name: Name
    """The model's id in the API."""
    task: Literal["generate", "embed", "score", "transcribe"] = "generate"
    """generate: chat and completions; embed: embeddings; score: rerank and score."""
    source: str = Field(pattern=SOURCE_PATTERN)
    """Where the weights are: hf://org/name[@revision], s3://, gs://, pvc://claim/path or oci://image[#path]."""
    accelerator: Accelerator
    """What one replica runs on."""
    nodes: int = Field(1, ge=1, le=16)
    """Nodes of one replica, each with accelerator.count GPUs; more than one is pipeline parallel."""
    parallelism: Parallelism = Parallelism()
    """How a replica is split further."""
    placement: Placement
    """The placement group the chart derived from the accelerator: of one rank, where there are several."""
    engine: EngineArgs = EngineArgs()
    """vLLM's engine arguments."""
    lora: LoraSlots | None = None
    """Room for LoRA adapters; unset: the model takes none."""
    surge_percent: int = Field(100, ge=0, le=100)
    """Replicas (in percent) started before old ones stop in a rollout; 0 when there is no room for a second copy."""

    @model_validator(mode="after")
    def _placement_fits(self) -> "LLMArgs":
        if len(self.placement.bundles) != self.accelerator.count * self.nodes:
            raise ValueError(
                f"placement.bundles: {len(self.placement.bundles)} for accelerator.count {self.accelerator.count} on "
                f"{self.nodes} nodes; one bundle per GPU"
            )
        return self
