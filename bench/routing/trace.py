"""Traces in Mooncake's format: a request a line, its prompt as the ids of its blocks of 512 tokens."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

#: Tokens in a block, and bytes in a token of English text.
BLOCK_TOKENS = 512
TOKEN_BYTES = 4


class TraceError(Exception):
    """A file is not in Mooncake's format; one line says where and why."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a trace."""

    at_s: float
    prompt_tokens: int
    generated_tokens: int
    blocks: tuple[int, ...]
    """Ids; two prompts whose first n ids are the same share n blocks."""

    @property
    def tokens(self) -> int:
        """Prompt and generated."""
        return self.prompt_tokens + self.generated_tokens

    def prompt(self) -> bytes:
        """A text that shares with other prompts what the ids say."""
        return b"".join(_content(block) for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in the order of their times."""

    name: str
    requests: tuple[Request, ...]
    sha256: str = ""
    """Of the file; empty for one that was generated."""

    @property
    def blocks(self) -> int:
        """In all prompts together."""
        return sum(len(request.blocks) for request in self.requests)


def read(path: Path) -> Trace:
    """The trace in a file of JSON lines with ``timestamp`` (ms), ``input_length``, ``output_length`` and ``hash_ids``.

    Raises:
        TraceError: it cannot be read, or a line is not such an object.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from None
    requests = [
        _request(line, f"{path}:{number}") for number, line in enumerate(content.splitlines(), 1) if line.strip()
    ]
    if not requests:
        raise TraceError(f"{path}: no requests; one JSON object a line is a trace")
    ordered = sorted(requests, key=lambda request: request.at_s)
    return Trace(path.name, tuple(ordered), hashlib.sha256(content).hexdigest())


def _request(line: bytes, where: str) -> Request:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise TraceError(f"{where}: not JSON: {error.msg}") from None
    if not isinstance(fields, dict):
        raise TraceError(f"{where}: not an object, but {type(fields).__name__}")
    blocks = _field(fields, "hash_ids", where)
    if not isinstance(blocks, list) or not all(type(block) is int for block in blocks):
        raise TraceError(f"{where}: hash_ids is not a list of integers")
    return Request(
        at_s=_amount(fields, "timestamp", where) / 1000,
        prompt_tokens=int(_amount(fields, "input_length", where)),
        generated_tokens=int(_amount(fields, "output_length", where)),
        blocks=tuple(blocks),
    )


def _amount(fields: dict[str, Any], name: str, where: str) -> float:
    value = _field(fields, name, where)
    if type(value) not in (int, float) or value < 0:
        raise TraceError(f"{where}: {name} is not a number of at least 0: {value!r}")
    return float(value)


def _field(fields: dict[str, Any], name: str, where: str) -> Any:
    if name not in fields:
        raise TraceError(f"{where}: {name} is missing")
    return fields[name]


def _content(block: int) -> bytes:
    digest = hashlib.blake2b(str(block).encode()).digest()
    return digest * (BLOCK_TOKENS * TOKEN_BYTES // len(digest))
