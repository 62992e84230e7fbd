"""The batch app's arguments and settings (``batch:`` in values)."""

from pydantic import Field

from serve_apps.common.config import Config


class BatchArgs(Config):
    """What the batch app needs to start."""

    gateway_url: str = Field(pattern=r"^https?://[^?#]+[^/?#]$")
    """The gateway; every line of a batch is a request to it."""
    model_timeout_s: float = Field(900, gt=0)
    """How long a model may take to answer a line, in seconds."""
    storage: str = Field(pattern=r"^(s3://|gs://|file:///)[^@\s]+$")
    """Where files and batches are kept: ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``file:///folder``."""
    redis: str = Field("", pattern=r"^(rediss?://[^@\s]+)?$")
    """Where replicas agree who works on which batch, ``redis://host:port/db``; the password is a Secret's. Empty: they
    agree through the storage."""


class BatchSettings(Config):
    """The batch app's ``user_config``: replaced in place and whole, no restart."""

    concurrency: int = Field(16, ge=1, le=1024)
    """Lines that one replica has at one model at a time, of all batches together. Fewer while the model is busy."""
    max_batches: int = Field(16, ge=1, le=256)
    """Batches that one replica works on at a time; the others wait, those of tenants with fewer first."""
    max_file_bytes: int = Field(32 * 1024 * 1024, ge=1024, le=512 * 1024 * 1024)
    """The largest input file, in bytes."""
    max_requests: int = Field(50_000, ge=1, le=1_000_000)
    """Lines a batch may have."""
    retention_hours: int = Field(720, ge=24, le=24 * 366)
    """Hours that files, and batches that are over, are kept."""
