"""The lines of an input file, and what is wrong with them: pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from serve_apps.batch.objects import ENDPOINTS, BatchError
from serve_apps.batch.storage import BLOCK_BYTES

#: As many faults are told; a file that is all wrong need not be repeated.
MAX_ERRORS = 100
MAX_CUSTOM_ID_CHARS = 512


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a batch."""

    custom_id: str
    url: str
    model: str
    body: bytes


class Wrong(Exception):
    """A line is not a request that this batch may have."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class InputWrong(Exception):
    """An input has lines that are no requests; nothing was sent."""

    def __init__(self, errors: list[BatchError]) -> None:
        super().__init__("; ".join(f"line {error.line}: {error.message}" for error in errors[:3]))
        self.errors = errors


def spans(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """A file that need not fit into memory, some whole lines at a time, and where each of these spans starts."""
    start, rest = 0, b""
    while block := stream.read(BLOCK_BYTES):
        whole, newline, rest = (rest + block).rpartition(b"\n")
        if newline:
            yield start, whole
            start += len(whole) + 1
    if rest:
        yield start, rest


def blocks(stream: BinaryIO) -> Iterator[list[tuple[int, bytes]]]:
    """The lines of a file that need not fit into memory, with their numbers from 1, some at a time; no blank ones."""
    number = 0
    for _, text in spans(stream):
        lines = text.split(b"\n")
        yield [(number + place, line) for place, line in enumerate(lines, 1) if line.strip()]
        number += len(lines)


def read(line: bytes, endpoint: str | None = None) -> Line:
    """The request that a line is.

    Args:
        line: JSON.
        endpoint: the path it must name; any of those a batch may have unless given.

    Raises:
        Wrong: it is none.
    """
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise Wrong("invalid_json_line", "This line is not parseable as valid JSON.") from None
    if not isinstance(document, dict):
        raise Wrong("invalid_json_line", "This line is not a JSON object.")
    for name in ("custom_id", "method", "url", "body"):
        if document.get(name) is None:
            raise Wrong("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
    custom_id, url = document["custom_id"], document["url"]
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID_CHARS:
        raise Wrong("invalid_custom_id", f"custom_id: a text of 1 to {MAX_CUSTOM_ID_CHARS} characters.", "custom_id")
    if document["method"] != "POST":
        raise Wrong("invalid_method", "The method of every request must be POST.", "method")
    if url != endpoint if endpoint is not None else url not in ENDPOINTS:
        expected = endpoint or " or ".join(ENDPOINTS)
        raise Wrong("invalid_url", f"The URL of this request does not match the endpoint, {expected}.", "url")
    model = _model_of(document["body"])
    try:
        return Line(custom_id, url, model, orjson.dumps(document["body"]))
    except orjson.JSONEncodeError:
        raise Wrong("invalid_body", "body: nested too deeply.", "body") from None


def _model_of(body: Any) -> str:
    if not isinstance(body, dict):
        raise Wrong("invalid_body", "body: a JSON object.", "body")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise Wrong("missing_required_parameter", "Missing required parameter: 'body.model'.", "body.model")
    if body.get("stream"):
        raise Wrong("invalid_stream", "A request of a batch is not streamed; leave stream out.", "body.stream")
    return model


class Check:
    """Looks at the lines of an input file one after the other."""

    def __init__(self, endpoint: str | None, max_requests: int) -> None:
        self._endpoint = endpoint
        self._max_requests = max_requests
        self.seen: set[str] = set()
        """The ids so far."""
        self.total = 0
        """Lines so far."""
        self.errors: list[BatchError] = []
        """The first faults, at most ``MAX_ERRORS``."""

    def see_all(self, stream: BinaryIO) -> None:
        """Look at the lines of a file."""
        for block in blocks(stream):
            for number, line in block:
                self.see(number, line)

    def see(self, number: int, line: bytes) -> None:
        """Look at the next line."""
        self.total += 1
        try:
            request = read(line, self._endpoint)
            if request.custom_id in self.seen:
                raise Wrong(
                    "duplicate_custom_id",
                    "The custom_id of this request is that of another one; each must be unique in a batch.",
                    "custom_id",
                )
            self.seen.add(request.custom_id)
        except Wrong as wrong:
            self._tell(BatchError(code=wrong.code, message=wrong.message, param=wrong.param, line=number))

    def finish(self) -> None:
        """No line comes after this."""
        if not self.total:
            self._tell(BatchError(code="empty_file", message="The input file has no request."))
        if self.total > self._max_requests:
            problem = f"The input file has {self.total} requests; a batch may have {self._max_requests}."
            self._tell(BatchError(code="too_many_requests", message=problem))

    def _tell(self, error: BatchError) -> None:
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error)
