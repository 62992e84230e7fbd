"""The chart's values as types. They exist to generate charts/llm-serving/values.schema.json; nothing loads them.

Blocks an application reads are that application's own models, so chart and app cannot disagree. A field without a
default has one in values.yaml and must not be nulled away; an optional one may be left out or null. Rules about two
keys are in the chart's _validate*.tpl, and so are those whose message should name what there is (accelerators,
sources). Docstrings describe the keys of named entries; values.yaml describes the rest.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from serve_apps.agent.config import Agent
from serve_apps.batch.config import BatchSettings
from serve_apps.common.config import AdapterName, Config, Name
from serve_apps.common.prices import Price
from serve_apps.gateway.config import Adapter, GatewayArgs, Jwt, LogicalModel, Queue, Tenant
from serve_apps.llm import config as llm
from serve_apps.llm.config import IMAGE_PATTERN, Autoscaling, EngineArgs, LoraSlots, Sampling
from serve_apps.rag.config import Pipeline, VectorStore

#: A block that is passed on as it is; its owner's schema checks it.
Verbatim = dict[str, Any]


def _partial(schema: dict[str, Any]) -> None:
    """Make every key of a schema optional."""
    schema.pop("required", None)


def _in_values(schema: dict[str, Any]) -> None:
    """The gateway's arguments as values have them: all written out, less what ``security`` and ``redis`` decide."""
    for elsewhere in ("auth", "jwt", "redis"):
        schema["properties"].pop(elsewhere)
    schema["required"] = sorted(schema["properties"])


class Accelerator(Config):
    """What a replica or a worker has."""

    type: str
    """A GPU in Ray's spelling, or ``cpu``."""
    count: int | None = Field(None, ge=1, le=64)
    """GPUs, or CPU cores; 1 unless set."""


class Replicas(Config):
    """The bounds of a block that scales, in short."""

    min: int | None = Field(None, ge=0)
    """Replicas at least; 1 unless set."""
    max: int | None = Field(None, ge=1)
    """Replicas at most; as `min` unless set."""


class Prefill(llm.Prefill):
    """Replicas that read prompts for those that answer."""

    replicas: Replicas | None = None
    """Bounds of these replicas."""
    autoscaling: Autoscaling | None = None
    """Ray Serve's autoscaling of these replicas."""
    max_ongoing_requests: int | None = Field(None, ge=1)
    """Prompts a replica reads at a time; as the model's `maxOngoingRequests` unless set."""


class Parallelism(llm.Parallelism):
    """How a model is split beyond tensors and layers."""

    prefill: Prefill | None = None
    """Replicas, each with such an accelerator, that compute the KV cache of prompts and hand it to those that answer;
    unless set, each replica does both."""


class ModelQueue(Queue):
    """A model's queue, of which each key has a default."""

    model_config = ConfigDict(json_schema_extra=_partial)


class Size(Config):
    """What a model's config.json says about how much memory it takes."""

    parameters: float = Field(gt=0)
    """Its parameters, in billions; all of them for a mixture of experts."""
    experts: float | None = Field(None, ge=0)
    """Those of them that are in experts, in billions: a data parallel rank has only its share of these."""
    embeddings: float | None = Field(None, ge=0)
    """Those of them in the embeddings and the output (vocab_size x hidden_size, twice unless tied) and whatever else
    keeps its 16 bits when the layers have fewer, in billions."""
    layers: int = Field(ge=1)
    """num_hidden_layers."""
    kv_heads: int = Field(ge=1)
    """num_key_value_heads."""
    head_dim: int = Field(ge=1)
    """head_dim, or hidden_size / num_attention_heads."""


class LoraAdapter(Adapter):
    """One LoRA adapter."""

    source: str = Field(min_length=1)
    """Where it is: pvc://claim/path, oci://image[#path], s3://, gs:// or hf://org/name[@revision]."""


class Lora(LoraSlots):
    """LoRA adapters of a model, and the room for them."""

    directory: str | None = Field(None, min_length=1)
    """A folder (pvc://claim/path, oci://image, s3://, gs:// or hf://org/name) whose folders are adapters."""
    adapters: dict[AdapterName, LoraAdapter | None] | None = None
    """Adapters by name, listed in /v1/models; each is fetched and loaded when it is asked for first."""


class Model(Config):
    """One model."""

    enabled: bool | None = None
    """False takes the model away."""
    task: Literal["generate", "embed", "score", "transcribe"] | None = None
    """generate (chat and completions), embed (embeddings), score (rerank and score) or transcribe (audio); generate
    unless set."""
    runtime: Literal["ray", "standalone", "external"] | None = None
    """Who runs it: ray (Ray Serve), standalone (a Deployment of vLLM's own server; with a `url`, one of yours) or
    external (another provider at `url`); ray unless set. One at a `url` takes no source, accelerator or any other key
    of replicas."""
    url: str | None = None
    """Where a model answers that the chart does not run, without the path: /v1/… is appended."""
    served_model: str | None = Field(None, min_length=1)
    """The name a model has at its `url`; the same as here unless set."""
    credential: str | None = Field(None, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$")
    """The entry of the Secret security.upstreams with an external model's API key; none is sent unless set."""
    takes_priority: bool | None = None
    """Whether a standalone model at a `url` schedules by priority; others do if engine.extra.scheduling_policy says
    so."""
    price: Price | None = None
    """What its tokens cost, for budgets and for the usage that tenants see; nothing unless set."""
    queue: ModelQueue | None = None
    """Its queue in each replica of the gateway. Unless set, a model of Ray may have as many requests as all its
    replicas work on, and others as many as come."""
    source: str | None = Field(None, min_length=1)
    """Where the weights are: hf://org/name[@revision], s3://, gs://, pvc://claim/path or oci://registry/name:tag[#path].
    Required unless it has a `url`."""
    size: Size | None = None
    """How large it is, so that it is known at install whether it fits; some models' sizes are known."""
    accelerator: Accelerator | None = None
    """What one replica runs on; more than one GPU is tensor parallel. Required unless it has a `url`."""
    nodes: int | None = Field(None, ge=1, le=16)
    """Nodes of one replica, each with such an accelerator; more than one is pipeline parallel. 1 unless set."""
    parallelism: Parallelism | None = None
    """Data and expert parallel, for mixtures of experts, and replicas of their own for prefill; none unless set."""
    worker_group: str | None = None
    """The group to run in; unless set, the smallest enabled one that fits the accelerator."""
    replicas: Replicas | None = None
    """Bounds of its replicas."""
    autoscaling: Autoscaling | None = None
    """Ray Serve's autoscaling."""
    max_ongoing_requests: int | None = Field(None, ge=1)
    """Requests a replica works on at a time; 64 unless set."""
    max_queued_requests: int | None = Field(None, ge=0)
    """Requests a replica holds beyond that, before it refuses with 429; 64 unless set."""
    drain_seconds: int | None = Field(None, ge=0)
    """Seconds a replica that is replaced may finish its streams; 120, or maxDrainSeconds if less, unless set."""
    surge_percent: int | None = Field(None, ge=0, le=100)
    """Replicas, in percent, that start before old ones stop in a rollout; 100 unless set."""
    sampling: Sampling | None = None
    """Defaults for requests that do not say."""
    engine: EngineArgs | None = None
    """vLLM's engine arguments."""
    lora: Lora | None = None
    """LoRA adapters; none unless set."""
    env: dict[str, str] | None = None
    """Environment variables of its replicas. No secrets."""


class Standalone(Config):
    """What the standalone models of the chart share."""

    autoscaler: Literal["hpa", "keda"]
    prometheus: str
    pod_template: Verbatim


class Gateway(GatewayArgs):
    """The gateway: its own arguments, and how it is sized."""

    model_config = ConfigDict(json_schema_extra=_in_values)

    port: int = Field(ge=1, le=65535)
    host: Literal["0.0.0.0", "127.0.0.1"]  # noqa: S104  # in a pod, all interfaces are the pod's
    replicas: Replicas
    autoscaling: Autoscaling
    cpus: float = Field(ge=0)
    drain_seconds: int = Field(ge=0)
    shares_redis: bool
    redis_database: int = Field(ge=0, le=15)
    routes: dict[Name, LogicalModel | None]
    """Logical models, by the name clients use."""
    tenants: dict[str, Tenant | None]
    """Rules of single tenants, by key id or claim."""
    other_tenants: Tenant


class RagIngest(Config):
    """What brings a large collection of documents into a pipeline, once or on a schedule."""

    source: str
    """Where they are: s3://bucket/prefix, gs://bucket/prefix or pvc://claim/path."""
    schedule: str | None = None
    """When, as cron says it ("0 3 * * *"). Unset: once, and again when this block or the image changes. With executor
    ray-data always once, and again when this block changes."""
    executor: Literal["job", "ray-data"] = "job"
    """`job`: one pod, a Job or CronJob. `ray-data`: a RayJob with several, for what one cannot read fast enough."""
    workers: int | None = Field(None, ge=1)
    """With executor ray-data: pods that read and upload; 2 unless set."""
    resources: Verbatim | None = None
    """With executor ray-data: Kubernetes' resources of a worker; a CPU and 2 GiB unless set. Files are read whole: more
    memory for large ones."""
    tenant: str = Field("ingest", min_length=1)
    """Whose documents they are, and whom their tokens are charged to."""
    concurrency: int = Field(4, ge=1, le=8)
    """Uploads at a time, with executor ray-data of each worker; the gateway's replica takes 8 from everybody."""
    existing_secret: str | None = None
    """A Secret whose entries become the pods' environment, such as AWS_ACCESS_KEY_ID. Unset: the service account's
    identity in the cloud."""


class RagVectorStore(VectorStore):
    """Where chunks and their vectors live."""

    uri: str = ""
    """A file name ending in .db is a store of the pipelines' own: one replica, up to some 100,000 chunks, which are
    searched in memory. `http://host:19530` is a Milvus server, 2.5 or later. Unset: the Milvus of `milvus`."""
    credential: str = Field("", pattern=r"^([A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?)?$")
    """The entry of the Secret of `milvus` that opens a server named here; none is shown unless set."""


class RagPipeline(Pipeline):
    """One RAG pipeline."""

    vector_store: RagVectorStore = Field(default_factory=RagVectorStore)
    """Where chunks and their vectors live; the Milvus of `milvus` unless set."""
    enabled: bool | None = None
    """False takes the pipeline away."""
    ingest: RagIngest | None = None
    """Documents to bring in."""


class RagPipelineOverride(RagPipeline):
    """Keys that replace those of the pipeline of the same name."""

    model_config = ConfigDict(json_schema_extra=_partial)


class AgentValues(Agent):
    """One agent."""

    enabled: bool | None = None
    """False takes the agent away."""


class AgentOverride(AgentValues):
    """Keys that replace those of the agent of the same name."""

    model_config = ConfigDict(json_schema_extra=_partial)


def _whole(schema: dict[str, Any]) -> None:
    """Make every key of a schema required: values.yaml has them all."""
    schema["required"] = sorted(schema["properties"])


class BatchJob(Config):
    """One batch on accelerators of its own."""

    enabled: bool | None = None
    """False takes the job away."""
    model: str
    """Who answers: an entry of models that the chart runs, with its worker group. It need not have replicas."""
    input: str
    """Lines as of a batch: a file, or a folder with files *.jsonl; s3://, gs:// or pvc://claim/path."""
    output: str
    """The folder for the answers; s3://, gs:// or pvc://claim/path. A job goes on with what is there."""
    replicas: int = Field(1, ge=1)
    """Replicas of the model that the job has."""
    concurrency: int = Field(256, ge=8)
    """Lines that a replica has at a time; some more than the engine's max_num_seqs keep it busy."""
    existing_secret: str | None = None
    """A Secret whose entries become the pods' environment, such as AWS_ACCESS_KEY_ID. Unset: the service account's
    identity in the cloud."""


class Batch(BatchSettings):
    """Files and batches: the application's settings, where it keeps them, its replicas, and large batches."""

    model_config = ConfigDict(json_schema_extra=_whole)

    enabled: bool
    storage: str
    replicas: int = Field(ge=1)
    jobs: dict[Name, BatchJob | None]
    """Batches on accelerators of their own, by name."""


class Reading(Config):
    """How what reads documents is sized."""

    replicas: Replicas
    autoscaling: Autoscaling
    cpus: float = Field(ge=0)


class Pipelines(Config):
    """How the applications of all RAG pipelines and of all agents are sized."""

    replicas: Replicas
    autoscaling: Autoscaling
    cpus: float = Field(ge=0)
    max_ongoing_requests: int = Field(ge=1)
    max_queued_requests: int = Field(ge=0)
    drain_seconds: int = Field(ge=0)
    reading: Reading
    data_claim: str


class Overrides(Config):
    """What an environment changes about entries that exist."""

    models: dict[Name, Model | None]
    """Keys that replace those of the model of the same name."""
    rag: dict[Name, RagPipelineOverride | None]
    """Keys that replace those of the pipeline of the same name."""
    agent: dict[Name, AgentOverride | None]
    """Keys that replace those of the agent of the same name."""


class Image(Config):
    """One image."""

    repository: str = Field(min_length=1)
    """Its repository, below image.registry."""
    tag: str


class Images(Config):
    """The images and how they are pulled."""

    registry: str
    pull_policy: Literal["Always", "IfNotPresent", "Never"]
    """As in a pod."""
    pull_secrets: list[Verbatim]
    pre_pull: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,54}$")]]
    serve: Image
    vllm: Image
    vllm_cpu: Image


class UpgradeStrategy(Config):
    """What a change of the cluster does."""

    type: str


class Head(Config):
    """The head pod."""

    resources: Verbatim
    """Kubernetes' resources."""
    node_selector: Verbatim
    """As in a pod."""
    tolerations: list[Verbatim]
    priority_class_name: str
    min_available: int = Field(ge=0, le=1)
    pod_template: Verbatim


class WorkerGroup(Config):
    """One group of Ray workers."""

    enabled: bool | None = None
    """False takes the group away; that rolls a new RayCluster."""
    order: int | None = Field(None, ge=0, le=999_999_999)
    """Its place among the groups, 1000 unless set; an added group takes a higher one than all others."""
    pipelines: bool | None = None
    """Whether it hosts the gateway and the pipelines."""
    accelerator: Accelerator | None = None
    """What one worker has for models; none unless set."""
    image: Literal["serve", "vllm", "vllmCpu"] | None = None
    """Unless set: vllm for GPUs, vllmCpu for cpu, serve without an accelerator."""
    resources: Verbatim | None = None
    """Kubernetes' resources; unless set, what such a node can give, Ray's overhead included."""
    min_replicas: int | None = Field(None, ge=0)
    """Workers at least; 0 unless set."""
    max_replicas: int | None = Field(None, ge=0)
    """Workers at most; 1 unless set."""
    idle_timeout_seconds: int | None = Field(None, ge=0)
    """Seconds until an idle worker goes; 300 unless set."""
    node_selector: Verbatim | None = None
    """As in a pod; null removes a label."""
    tolerations: list[Verbatim] | None = None
    """As in a pod; GPU groups also tolerate the taint nvidia.com/gpu."""
    priority_class_name: str | None = None
    """A PriorityClass; the cluster's default unless set."""
    min_available: int | None = Field(None, ge=0)
    """Ready workers that a drain of nodes leaves; one less than minReplicas and at least 1 unless set, and 0 for no
    budget."""
    node_pool: str | None = None
    """An entry of nodePools: its nodes only, its taints tolerated."""
    cache_claim: str | None = None
    """A PersistentVolumeClaim for what its models download and compile; unless set, that goes with the pod."""
    model_claims: list[str] | None = None
    """PersistentVolumeClaims with weights, for sources pvc://<claim>/path; mounted read-only."""
    model_images: list[Annotated[str, Field(pattern=f"^{IMAGE_PATTERN}$")]] | None = None
    """Images with weights, each by tag or digest, for sources oci://<image>; mounted read-only."""
    pod_template: Verbatim | None = None
    """As head.podTemplate."""


class NodePool(Config):
    """One Karpenter NodePool."""

    enabled: bool | None = None
    """False takes the pool away."""
    node_class: str | None = None
    """An entry of nodeClasses, or an EC2NodeClass that exists. Required."""
    requirements: list[Verbatim] | None = None
    """Karpenter's; unless set: families g6e, g5 and p4d, amd64, on demand or spot."""
    taints: list[Verbatim] | None = None
    """Kubernetes'; unless set: nvidia.com/gpu=true:NoSchedule."""
    limits: Verbatim | None = None
    """Karpenter's; unless set: 100 GPUs."""
    disruption: Verbatim | None = None
    """Karpenter's; unless set: WhenEmptyOrUnderutilized after 5m."""
    weight: int | None = Field(None, ge=1, le=100)
    """Among pools that fit, the heavier is tried first."""
    expire_after: str | None = None
    """How long a node may live, for example 720h."""
    labels: dict[str, str] | None = None
    """Labels of its nodes."""


class NodeClass(Config):
    """One EC2NodeClass."""

    enabled: bool | None = None
    """False takes the class away."""
    spec: Verbatim
    """Karpenter's, as it is."""


class Ingress(Config):
    """The Ingress."""

    enabled: bool
    class_name: str
    """The IngressClass; empty: the cluster's default."""
    host: str
    annotations: dict[str, str]
    """As in an Ingress, for its controller."""
    tls: list[Verbatim]


class HttpRoute(Config):
    """The HTTPRoute."""

    enabled: bool
    parent_refs: list[Verbatim]
    hostnames: list[str]
    annotations: dict[str, str]
    """As in an HTTPRoute, for its controller."""
    timeouts: dict[str, str]


class Dashboard(Config):
    """Ray's dashboard."""

    auth: Literal["", "controller", "token"]
    ingress: Ingress


class ExistingSecret(Config):
    """A Secret by reference."""

    existing_secret: str
    external_key: str


class SecretStore(Config):
    """The External Secrets Operator's store."""

    name: str
    kind: Literal["ClusterSecretStore", "SecretStore"]


class ExternalSecrets(Config):
    """What the External Secrets Operator fetches."""

    store: SecretStore
    refresh_interval: str = Field(min_length=1)


class JwtValues(Jwt):
    """How JWTs are checked; empty where there are none."""

    model_config = ConfigDict(json_schema_extra=_partial)


class RaySecurity(ExistingSecret):
    """Who may use Ray's own interfaces."""

    auth: Literal["token", "none"]


class Security(Config):
    """Who may call, and where the Secrets are."""

    external_secrets: ExternalSecrets
    auth: Literal["apiKeys", "jwt", "none"]
    api_keys: ExistingSecret
    jwt: JwtValues
    upstreams: ExistingSecret
    tools: ExistingSecret
    internal: ExistingSecret
    hugging_face: ExistingSecret
    ray: RaySecurity


class ServiceAccount(Config):
    """The workers' account."""

    create: bool
    """Whether the chart makes it."""
    name: str
    annotations: dict[str, str]


class NetworkPolicy(Config):
    """Who may reach which port."""

    enabled: bool
    """Whether the chart makes them."""
    clients: list[Verbatim]
    dashboard_clients: list[Verbatim]
    metrics_clients: list[Verbatim]
    operators: list[Verbatim]
    egress: list[Verbatim]


class RedisStorage(Config):
    """The volume of the installed Redis."""

    size: str = Field(min_length=1)
    class_name: str


class Redis(Config):
    """The Redis that keeps what the head knows and what the gateway's replicas share."""

    enabled: bool
    address: str
    existing_secret: str
    external_key: str
    image: str = Field(min_length=1)
    resources: Verbatim
    priority_class_name: str
    min_available: int = Field(ge=0, le=1)
    storage: RedisStorage


class MilvusStorage(Config):
    """The volume of the installed Milvus."""

    size: str = Field(min_length=1)
    class_name: str


class Milvus(Config):
    """The Milvus that keeps the pipelines' documents."""

    enabled: bool
    uri: str
    existing_secret: str
    external_key: str
    image: str = Field(min_length=1)
    config: Verbatim
    resources: Verbatim
    node_selector: Verbatim
    tolerations: list[Verbatim]
    priority_class_name: str
    min_available: int = Field(ge=0, le=1)
    storage: MilvusStorage


class PodMonitor(Config):
    """A PodMonitor for the Ray pods."""

    enabled: bool
    """Whether the chart makes it."""
    interval: str
    """Between scrapes."""
    labels: dict[str, str]


class ServiceMonitor(Config):
    """A ServiceMonitor for the operator."""

    enabled: bool
    """Whether the chart makes it."""
    interval: str
    """Between scrapes."""
    labels: dict[str, str]
    """What your Prometheus selects monitors by."""
    operator_namespace: str


class Dashboards(Config):
    """Grafana dashboards."""

    enabled: bool
    """Whether the chart makes them."""
    labels: dict[str, str]


class Alerts(Config):
    """A PrometheusRule with the alerts."""

    enabled: bool
    """Whether the chart makes it."""
    labels: dict[str, str]
    runbooks: str


class Monitoring(Config):
    """What Prometheus and Grafana get."""

    pod_monitor: PodMonitor
    service_monitor: ServiceMonitor
    dashboards: Dashboards
    alerts: Alerts


class Tracing(Config):
    """Traces in OpenTelemetry's terms."""

    endpoint: str = Field(pattern=r"^(https?://[^/?#\s]+(:[0-9]+)?)?$")
    """The collector's base URL, for OTLP over HTTP; empty: nothing is traced."""
    sample_ratio: float = Field(ge=0, le=1)
    """The part of requests that is traced whose callers do not say."""


class Values(Config):
    """All values, in the order of values.yaml."""

    name_override: str
    fullname_override: str
    image: Images
    ray_version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    models: dict[Name, Model | None]
    standalone: Standalone
    gateway: Gateway
    rag: dict[Name, RagPipeline | None]
    agent: dict[Name, AgentValues | None]
    batch: Batch
    pipelines: Pipelines
    overrides: Overrides
    max_drain_seconds: int = Field(ge=35)
    upgrade_strategy: UpgradeStrategy
    ray_cluster_deletion_delay_seconds: int = Field(ge=0)
    head: Head
    worker_groups: dict[Name, WorkerGroup | None]
    node_pools: dict[str, NodePool | None]
    node_classes: dict[str, NodeClass | None]
    ingress: Ingress
    http_route: HttpRoute
    dashboard: Dashboard
    security: Security
    service_account: ServiceAccount
    network_policy: NetworkPolicy
    redis: Redis
    milvus: Milvus
    monitoring: Monitoring
    tracing: Tracing
    extra_objects: list[Verbatim | str]
