"""The gateway's arguments (``gateway:`` in values) and its routing table."""

from typing import Literal

from pydantic import Field

from serve_apps.common.config import Config, Name
from serve_apps.common.protocol import Task


class GatewayArgs(Config):
    """What the gateway needs to start; a change restarts its replicas one after the other."""

    auth: Literal["apiKeys", "none"] = "apiKeys"
    """Who may call: holders of an API key, or everyone (laptops only)."""
    max_concurrent_requests: int = Field(512, ge=1)
    """Requests one replica relays at a time; beyond it callers get 429 with Retry-After."""
    max_request_bytes: int = Field(4 * 1024 * 1024, ge=1024)
    """The largest request body, in bytes; beyond it callers get 413. Document uploads have their own limit."""
    max_upload_bytes: int = Field(32 * 1024 * 1024, ge=1024)
    """The largest document upload, in bytes."""
    first_byte_timeout_s: float = Field(900, gt=0)
    """How long a model may take to begin its answer, in seconds; covers a start from zero replicas."""
    stall_timeout_s: float = Field(300, gt=0)
    """How long a stream may stay silent after it began, in seconds."""


class Upstream(Config):
    """Where a model or pipeline answers."""

    url: str = Field(pattern=r"^https?://[^?#]+[^/?#]$")
    """Base URL; the public path (``/v1/…``) is appended. It may stand outside Ray."""
    task: Task
    """What it does, which decides the paths it answers."""


class RoutingTable(Config):
    """The gateway's ``user_config``: replaced in place and whole, no restart."""

    models: dict[Name, Upstream] = Field(default_factory=dict)
    """Every model and pipeline a client may name."""
