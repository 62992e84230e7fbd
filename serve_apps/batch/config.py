"""The batch app's arguments and settings (``batch:`` in values), and those of a job (an entry of ``batch.jobs``)."""

from typing import Any

from pydantic import Field

from serve_apps.common.config import Config

#: The environment variable of a job's driver with its arguments, as JSON.
ARGS_VARIABLE = "LLM_SERVING_BATCH_JOB"
_PLACE = r"^(s3://|gs://|file:///)[^@\s]+$"


class BatchArgs(Config):
    """What the batch app needs to start."""

    gateway_url: str = Field(pattern=r"^https?://[^?#]+[^/?#]$")
    """The gateway; every line of a batch is a request to it."""
    model_timeout_s: float = Field(900, gt=0)
    """How long a model may take to answer a line, in seconds."""
    storage: str = Field(pattern=_PLACE)
    """Where files and batches are kept: ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``file:///folder``."""
    redis: str = Field("", pattern=r"^(rediss?://[^@\s]+)?$")
    """Where replicas agree who works on which batch, ``redis://host:port/db``; the password is a Secret's. Empty: they
    agree through the storage."""
    label_selector: dict[str, str] = Field(default_factory=dict)
    """Ray's labels of the nodes that Ray Data's processes may run on: those with a gateway and with the storage."""


class RayData(Config):
    """Which batches Ray Data sends, and how."""

    from_lines: int = Field(0, ge=0)
    """Batches of at least so many lines are sent by Ray Data, from processes of its own. 0: none are."""
    senders: int = Field(2, ge=1, le=64)
    """Processes that send the lines of one batch, wherever pipelines run; they share its `concurrency`."""


class BatchSettings(Config):
    """The batch app's ``user_config``: replaced in place and whole, no restart."""

    concurrency: int = Field(16, ge=1, le=1024)
    """Lines that one replica has at one model at a time, of all batches together. Fewer while the model is busy."""
    max_batches: int = Field(16, ge=1, le=256)
    """Batches that one replica works on at a time; the others wait, those of tenants with fewer first."""
    max_file_bytes: int = Field(32 * 1024 * 1024, ge=1024, le=512 * 1024 * 1024)
    """The largest input file, in bytes."""
    max_stored_bytes: int = Field(10 * 1024**3, ge=1024)
    """Bytes that the files of one tenant may have together."""
    max_requests: int = Field(50_000, ge=1, le=1_000_000)
    """Lines a batch may have."""
    retention_hours: int = Field(720, ge=24, le=24 * 366)
    """Hours that files, and batches that are over, are kept."""
    ray_data: RayData = RayData()
    """Large batches, sent by Ray Data."""


class JobArgs(Config):
    """A batch on accelerators of its own, in a Ray cluster that serves nobody else."""

    input: str = Field(pattern=_PLACE)
    """Its lines: a file, or a folder with files ``*.jsonl``."""
    output: str = Field(pattern=_PLACE)
    """The folder for its answers. What is there already is not asked again."""
    serve: dict[str, Any]
    """The Serve config of the only application, which is the model's."""
    replicas: int = Field(1, ge=1)
    """Replicas of the model, which share the lines."""
    concurrency: int = Field(256, ge=8)
    """Lines that a replica has at a time."""
