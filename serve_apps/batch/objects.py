"""Files and batches as OpenAI's API shows them, and as they are kept.

Shapes: https://platform.openai.com/docs/api-reference/files/object and …/batch/object
"""

import hashlib
import re
import secrets
import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from serve_apps.common.errors import InvalidRequest

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
Ending = Literal["completed", "expired", "cancelled"]

#: The statuses of a batch on which nobody works any more.
OVER = frozenset({"completed", "failed", "expired", "cancelled"})
#: The paths whose requests a batch may have.
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")

_ID = re.compile(r"(file-|batch_)[0-9a-f]{32}")
_WINDOW = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86400}
#: The longest window, in seconds.
MAX_WINDOW_S = 14 * 86400
#: What has an id for longer and no record will never have one: its maker was killed. In seconds.
UNFINISHED_S = 3600


class Shape(BaseModel):
    """An object of the API; a change makes another one."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class File(Shape):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"] = "processed"


class BatchError(Shape):
    """What is wrong with an input file."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class Errors(Shape):
    """All that was found wrong."""

    object: Literal["list"] = "list"
    data: tuple[BatchError, ...]


class RequestCounts(Shape):
    """How many lines there are, and how many are answered."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class Batch(Shape):
    """A batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: Errors | None = None
    input_file_id: str
    completion_window: str
    status: Status = "validating"
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    metadata: dict[str, str] | None = None
    results_kept_s: int | None = None
    """How long output and errors are kept, in seconds, if the client said; not shown."""
    ending: Ending | None = None
    """How it ends, once that is decided; not shown."""

    def shown(self) -> dict[str, Any]:
        """What clients see."""
        return self.model_dump(exclude={"results_kept_s", "ending"})

    @property
    def over(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in OVER

    @property
    def ended_at(self) -> int | None:
        """When nothing changed any more."""
        return self.completed_at or self.failed_at or self.expired_at or self.cancelled_at


def new_id(prefix: Literal["file-", "batch_"]) -> str:
    """An id that nobody can guess. Later ones sort after earlier ones."""
    return f"{prefix}{int(time.time() * 1000):012x}{secrets.token_hex(10)}"


def made_at(some_id: str) -> float:
    """When an id of ours was made, in seconds of Unix time."""
    return int(re.split("[-_]", some_id)[1][:12], 16) / 1000


def result_id(batch: str, what: Literal["output", "errors"]) -> str:
    """The id of a batch's own file, the same whenever it is written."""
    tail = batch.removeprefix("batch_")
    return f"file-{tail[:12]}{hashlib.sha256(f'{tail} {what}'.encode()).hexdigest()[:20]}"


def is_id(text: str, prefix: Literal["file-", "batch_"]) -> bool:
    """Whether it could be one of ours; only then may it become part of a path."""
    return text.startswith(prefix) and _ID.fullmatch(text) is not None


def window_s(text: object) -> int:
    """A completion window in seconds.

    Raises:
        InvalidRequest: it is none.
    """
    found = _WINDOW.fullmatch(text) if isinstance(text, str) else None
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= MAX_WINDOW_S:
        raise InvalidRequest(
            "Invalid value for 'completion_window': minutes, hours or days up to 14d, such as 24h.",
            param="completion_window",
            code="invalid_value",
        )
    return seconds
