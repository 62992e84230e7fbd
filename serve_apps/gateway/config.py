"""The gateway's arguments (``gateway:`` in values) and its routing table."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from serve_apps.common.config import AdapterName, Config, Name
from serve_apps.common.prices import Price
from serve_apps.common.protocol import Task

Sticky = Literal["user", "session", "tenant", "none"]

#: The priority of what need not be answered soon: after every tenant's.
BACKGROUND_PRIORITY = 101

#: Another name for a route, as clients of other services write theirs: ``gpt-4o``, ``openai/gpt-4o:latest``.
Alias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._/:]*[A-Za-z0-9])?$", max_length=128)]


class Jwt(Config):
    """How JSON Web Tokens (RFC 7519) are checked, and which claim says whose they are."""

    issuer: str = Field(min_length=1)
    """The token's ``iss``; also where OpenID Connect's discovery document is looked for."""
    audience: str = Field(min_length=1)
    """The token's ``aud``."""
    jwks_url: str | None = Field(None, pattern=r"^https?://")
    """Where the issuer's keys are; from the issuer's discovery document unless set."""
    tenant_claim: str = Field("sub", min_length=1)
    """The claim that holds the tenant's name; dots lead into nested claims."""
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"], ...] = ("RS256", "ES256")
    """The signatures that count."""
    leeway_s: float = Field(30, ge=0, le=300)
    """Seconds by which clocks may differ."""


class GatewayArgs(Config):
    """What the gateway needs to start; a change restarts its replicas one after the other."""

    auth: Literal["apiKeys", "jwt", "none"] = "apiKeys"
    """Who may call: holders of an API key, of a JWT, or everyone (laptops only)."""
    jwt: Jwt | None = None
    """How JWTs are checked; needed where ``auth`` is jwt. With apiKeys, JWTs are taken beside the keys."""
    redis: str = Field("", pattern=r"^(rediss?://[^@\s]+)?$")
    """Where replicas share counters and verdicts, ``redis://host:port/db``; the password is a Secret's. Empty: each
    replica counts for itself."""
    redis_outage: Literal["share", "open"] = "share"
    """While Redis is down: each replica grants its share of every limit, or limits are not enforced."""
    audit_log: bool = True
    """Whether every request that used a model is written to the log with its tenant, tokens and cost; no prompts."""
    playground: bool = False
    """Whether the page to try models with is served at ``/``, to anybody; what it asks for takes a key all the same."""
    max_concurrent_requests: int = Field(512, ge=1)
    """Requests one replica relays at a time; beyond it callers get 429 with Retry-After."""
    max_request_bytes: int = Field(4 * 1024 * 1024, ge=1024)
    """The largest request body, in bytes; beyond it callers get 413. Document uploads have their own limit."""
    max_upload_bytes: int = Field(32 * 1024 * 1024, ge=1024)
    """The largest document or audio upload, in bytes."""
    max_header_bytes: int = Field(16 * 1024, ge=1024, le=64 * 1024)
    """The largest sum of a request's header names and values, in bytes; beyond it callers get 431."""
    body_timeout_s: float = Field(30, gt=0)
    """How long a client may take to send its body, in seconds; beyond it callers get 408."""
    first_byte_timeout_s: float = Field(900, gt=0)
    """How long a model may take to begin its answer, in seconds; covers a start from zero replicas."""
    stall_timeout_s: float = Field(300, gt=0)
    """How long a stream may stay silent after it began, in seconds."""
    write_timeout_s: float = Field(60, gt=0)
    """How long a client may leave an answer unread, in seconds; then its connection is closed."""
    bypass_proxy: bool = True
    """Whether clients that connect to the pod's own address reach the gateway itself; off, or where no gateway stands,
    it is Serve's HAProxy that takes them, which costs a second pass over every token."""
    max_prefix_entries: int = Field(100_000, ge=0)
    """How many prompt prefixes a replica remembers, to send a prompt where its beginning is cached; 0 turns it off."""


class Queue(Config):
    """How many requests one gateway replica lets work on a model, and how many wait for it."""

    max_concurrent: int = Field(ge=1)
    """Requests at the model at a time."""
    max_waiting: int = Field(256, ge=0)
    """Requests that wait beyond those; more are refused with 429, lowest priority first."""
    timeout_s: float = Field(30, gt=0)
    """How long one waits at most, in seconds; then it gets 429."""


class Adapter(Config):
    """A LoRA adapter of a model."""

    tenants: tuple[str, ...] | None = None
    """Whom it is for: for others there is no such adapter. Unless set, it is for all who may use the model."""


class Upstream(Config):
    """Where a model or pipeline answers."""

    url: str = Field(pattern=r"^https?://[^?#]+[^/?#]$")
    """Base URL; the public path (``/v1/…``) is appended."""
    task: Task
    """What it does, which decides the paths it answers."""
    runtime: Literal["ray", "standalone", "external"] = "ray"
    """Who runs it: Ray Serve in this cluster, a vLLM server of its own that knows our internal credential or none, or
    another provider, who never sees that credential."""
    served_model: str | None = Field(None, min_length=1)
    """The name it is known by there; the same as here unless set."""
    credential: str | None = Field(None, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$")
    """The file below ``upstreams/`` of the secrets with its API key, for an external one; none is sent unless set."""
    adapters: dict[AdapterName, Adapter] = Field(default_factory=dict)
    """Its LoRA adapters, by name."""
    other_adapters: bool = False
    """Whether it may have more of them, in a folder that only its replicas see."""
    takes_priority: bool = False
    """Whether its engine schedules by priority (vLLM's ``--scheduling-policy priority``)."""
    price: Price | None = None
    """What its tokens cost; nothing unless set."""
    queue: Queue | None = None
    """Its queue in each replica of the gateway; unlimited unless set."""

    @property
    def asks_here(self) -> bool:
        """Whether it is an application of ours, which asks models through this gateway, for the same tenant."""
        return self.task in ("pipeline", "agent")


class Version(Config):
    """One of the models behind a route."""

    model: Name
    """Its name in ``models``."""
    weight: float = Field(100, ge=0, le=100)
    """Its share of the requests, in percent of the sum of all weights."""


class Shadow(Config):
    """A model that gets copies of a route's requests, and whose answers are dropped."""

    model: Name
    """Its name in ``models``."""
    percent: float = Field(100, gt=0, le=100)
    """The share of requests that are copied."""


class Slo(Config):
    """What a version must keep to stay in service; a rule that is not set is not checked."""

    max_error_rate: float | None = Field(None, ge=0, le=1)
    """Requests that may fail, as a fraction (0.05)."""
    ttft_p95_s: float | None = Field(None, gt=0)
    """Seconds to the first token that 95 % of streamed answers must keep."""
    itl_p95_s: float | None = Field(None, gt=0)
    """Seconds between two tokens, a request's mean, that 95 % of requests must keep."""
    min_requests: int = Field(50, ge=1)
    """Requests in the window before anything is judged."""
    window_s: float = Field(300, ge=1, le=86400)
    """How far back is looked, in seconds."""


class LogicalModel(Config):
    """A model that clients name and that one or several models stand behind."""

    versions: tuple[Version, ...] = Field(min_length=1)
    """The models that answer, with their weights. The first with the highest weight is the stable one."""
    aliases: tuple[Alias, ...] = ()
    """Other names clients may use for it."""
    sticky: Sticky = "none"
    """Whose requests stay on one version while weights only grow: those of one end user (the request's ``user`` or
    ``safety_identifier``), of one session (the header ``x-session-id``, or ``prompt_cache_key``), of one tenant; or
    nobody's."""
    shadow: Shadow | None = None
    """Who gets copies."""
    fallback: tuple[Name, ...] = ()
    """Models that are asked in turn when the version refuses, fails, is too slow or too small for the prompt; before
    the first byte only."""
    attempt_timeout_s: float | None = Field(None, gt=0)
    """How long a version may take to begin its answer before the next is asked, in seconds. Not applied to the last."""
    canary: Slo | None = None
    """What every version but the stable one must keep; one that does not is taken out until the values change."""

    @field_validator("versions")
    @classmethod
    def _each_once(cls, versions: tuple[Version, ...]) -> tuple[Version, ...]:
        names = [version.model for version in versions]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"each model once, with one weight; more than once: {', '.join(twice)}")
        return versions


class Tenant(Config):
    """What one tenant may do; what is not set is not limited."""

    models: tuple[str, ...] | None = None
    """Routes, models and pipelines it may name; all of them unless set."""
    requests_per_minute: int | None = Field(None, ge=1)
    """Requests a minute."""
    tokens_per_minute: int | None = Field(None, ge=1)
    """Prompt and generated tokens a minute."""
    max_concurrent_requests: int | None = Field(None, ge=1)
    """Requests at a time, over all replicas of the gateway."""
    max_tokens: int | None = Field(None, ge=1)
    """Tokens one request may have generated; asking for more is refused, and it is the default where models allow."""
    priority: int = Field(0, ge=-100, le=100)
    """Who goes first when a model is busy: the lower number, as in vLLM."""
    share: float = Field(1, gt=0)
    """Its share of a busy model, relative to other tenants of the same priority."""
    monthly_budget: float | None = Field(None, gt=0)
    """What it may spend in a calendar month (UTC), in the currency of the prices."""

    def without_requests(self) -> "Tenant":
        """The rules for what its own requests lead to inside: tokens and money, not requests."""
        return self.model_copy(update={"requests_per_minute": None, "max_concurrent_requests": None})

    def in_background(self) -> "Tenant":
        """The rules for what need not be answered soon: the same, after everybody else."""
        return self.model_copy(update={"priority": BACKGROUND_PRIORITY})


class RoutingTable(Config):
    """The gateway's ``user_config``: replaced in place and whole, no restart."""

    models: dict[Name, Upstream] = Field(default_factory=dict)
    """Every model and pipeline a client may name."""
    batch: str | None = Field(None, pattern=r"^https?://[^?#]+[^/?#]$")
    """Base URL of the application that has files and batches; there are none unless set."""
    routes: dict[Name, LogicalModel] = Field(default_factory=dict)
    """Logical models, by the name that clients use. A route may have the name of a model, and then hides it."""
    tenants: dict[str, Tenant] = Field(default_factory=dict)
    """Tenants with rules of their own, by key id or claim."""
    other_tenants: Tenant = Tenant()
    """The rules of every tenant that is not named, each for itself."""
    replicas: int = Field(1, ge=1)
    """How many replicas the gateway has at most: the shares, while Redis is down or there is none."""
