"""The tokens an answer reports, read while it passes.

Nothing of an answer is parsed but the object behind the key ``usage``. In quotes and before a colon that key cannot
stand inside a string, where its quotes would be escaped. Most chunks hold none and are passed after one search.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from serve_apps.gateway.request import USAGE_ON_REQUEST

#: As much of a usage object as is waited for, in bytes; and of an event that may hold one and was cut in two.
MAX_HELD_BYTES = 4096
#: Beyond this many tokens a report is no report; it is also what other programs can count to.
_MAX_TOKENS = 2**53

_LINE_FEED = 10
_KEY = b'"usage"'
_USAGE = re.compile(rb'"usage"\s*+:\s*+(\{(?:[^{}]++|\{[^{}]*+\})*+\})')
_BEGUN = re.compile(rb'"usage"\s*+(?::\s*+(?:\{.*)?)?\Z', re.DOTALL)
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_EVENT_DATA = re.compile(rb"^data:([^\r\n]*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an answer used."""

    prompt: int
    completion: int


def reader(path: str, stream: bool, hide_usage: bool) -> "Reader":
    """What reads an answer of ``path``; ``hide_usage`` where the client did not ask for a stream's usage."""
    return _HidingReader() if hide_usage and stream and path in USAGE_ON_REQUEST else Reader()


class Reader:
    """Sees an answer pass and notes the usage it reports. All chunks pass as they are."""

    __slots__ = ("_counts", "_rest")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._rest = b""
        """The end of what has passed, as far as it may be the beginning of a usage object."""

    def feed(self, chunk: bytes) -> bytes:
        """What to send of ``chunk``, and of what was held back before."""
        # A stream's chunk ends with its event's blank line: then nothing is cut. rfind is twice as fast as find here.
        if not self._rest and chunk and chunk[-1] == _LINE_FEED and chunk.rfind(_KEY) < 0:
            return chunk
        text = self._rest + chunk
        self._rest = self._note(text)
        return chunk

    def end(self) -> bytes:
        """What was held back; to be sent when the answer is over, however it ended."""
        return b""

    def tokens(self) -> Tokens | None:
        """What was reported so far; None if nothing was."""
        counts = self._counts
        if not counts:
            return None
        prompt = counts.get("prompt_tokens")
        if prompt is None:  # Anthropic's input tokens do not include those that were cached
            cached = counts.get("cache_read_input_tokens", 0) + counts.get("cache_creation_input_tokens", 0)
            prompt = counts["input_tokens"] + cached if "input_tokens" in counts else None
        completion = counts.get("completion_tokens", counts.get("output_tokens", 0))
        if prompt is None:  # a reranker of another make may tell the sum only
            prompt = max(0, counts.get("total_tokens", 0) - completion)
        return Tokens(prompt, completion)

    def _note(self, text: bytes) -> bytes:
        """Take in every usage object in ``text``; the end of it that may be half of one."""
        end = 0
        last = text.rfind(_KEY)
        if last >= 0:
            for found in _USAGE.finditer(text, text.find(_KEY)):
                end = found.end()
                self._counts.update(_counts(found[1]))
            if last >= end and len(text) - last < MAX_HELD_BYTES and _BEGUN.match(text, last):
                return text[last:]
        return b"" if text.endswith(b"\n") else text[max(end, len(text) - len(_KEY) + 1) :]


class _HidingReader(Reader):
    """For a stream whose usage only we asked for: the event that tells it, and nothing else, does not pass."""

    __slots__ = ()

    def feed(self, chunk: bytes) -> bytes:
        """As for every reader. An event that is cut in two is held back until the rest is here."""
        if not self._rest and chunk and chunk[-1] == _LINE_FEED and chunk.rfind(_KEY) < 0:
            return chunk
        text = self._rest + chunk
        passed = []
        begin = 0
        for end in _EVENT_END.finditer(text):
            event = text[begin : end.end()]
            begin = end.end()
            if _KEY not in event or not self._is_only_usage(event):
                passed.append(event)
        self._rest = text[begin:]
        if len(self._rest) > MAX_HELD_BYTES:  # too long for an event that tells only the usage
            passed.append(self._rest)
            self._rest = b""
        return b"".join(passed)

    def end(self) -> bytes:
        """What was held back: half an event, if the answer broke off."""
        held, self._rest = self._rest, b""
        return held

    def _is_only_usage(self, event: bytes) -> bool:
        self._note(event)
        data = _EVENT_DATA.search(event)
        try:
            document = orjson.loads(data[1]) if data else None
        except orjson.JSONDecodeError:
            return False
        return isinstance(document, dict) and document.get("choices") == [] and bool(document.get("usage"))


def _counts(usage: bytes) -> dict[str, int]:
    try:
        document: dict[str, Any] = orjson.loads(usage)
    except orjson.JSONDecodeError:
        return {}
    return {
        name: count
        for name, count in document.items()
        if name.endswith("_tokens") and type(count) is int and 0 <= count < _MAX_TOKENS
    }
