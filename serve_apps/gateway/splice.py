"""Fields of a JSON object, set where its bytes stand.

A document that is parsed and written again is another one: integers beyond 64 bits become floats, long fractions lose
digits, the first of two equal keys is gone. So what is not ours to set stays as it came, byte for byte.
"""

import re
from collections.abc import Mapping

import orjson

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_TOKEN = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_COLON = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_SCALAR = re.compile(_STRING + rb"|[^,}\] \t\r\n]+", re.DOTALL)


def set_fields(body: bytes, document: Mapping[str, object], fields: Mapping[str, bytes]) -> bytes:
    """``body`` with ``fields`` (JSON each) of its outermost object set; everything else stands as it stood.

    ``document`` is what ``body`` holds. Of a key that stands there twice the last one is set, since that is the one
    which Python's parsers, vLLM's among them, read.
    """
    changes = []
    added = []
    for key, value in fields.items():
        if key in document:
            start, end = _value_of(body, key)
            changes.append((start, end, value))
        else:
            added.append(orjson.dumps(key) + b":" + value)
    if added:
        closing = body.rindex(b"}")
        comma = b"," if document else b""
        changes.append((closing, closing, comma + b",".join(added)))
    parts: list[bytes] = []
    done = 0
    for start, end, value in sorted(changes):
        parts += (body[done:start], value)
        done = end
    return b"".join((*parts, body[done:]))


def field(body: bytes, key: str) -> bytes:
    """The value (as it stands there) of ``key``, which the outermost object has."""
    start, end = _value_of(body, key)
    return body[start:end]


def _value_of(body: bytes, key: str) -> tuple[int, int]:
    """Where the value of the outermost object's last ``key`` begins and ends."""
    at = _only_mention(body, key)
    return _value_after(body, _last_mention(body, key) if at is None else at)


def _only_mention(body: bytes, key: str) -> int | None:
    """The end of the one place where ``key`` stands in quotes; None if there are several, or if some may be escaped.

    What stands in quotes cannot be inside a string, where they would be escaped; and the key is known to be there.
    Searching for bytes takes a tenth of the time that looking at every string does.
    """
    quoted = b'"%b"' % key.encode()
    at = body.rfind(quoted)
    escapes = {b"\\u00%x" % (ord(character) >> 4) for character in key}
    if body.rfind(quoted, 0, at) >= 0 or any(body.rfind(escape) >= 0 for escape in escapes):
        return None
    return at + len(quoted)


def _last_mention(body: bytes, key: str) -> int:
    """The end of the outermost object's last ``key``."""
    depth = 0
    found = 0
    for token in _TOKEN.finditer(body):
        first = body[token.start()]
        if first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
        elif depth == 1 and _COLON.match(body, token.end()) and orjson.loads(token[0]) == key:
            found = token.end()
    return found


def _value_after(body: bytes, key_end: int) -> tuple[int, int]:
    colon = _COLON.match(body, key_end)
    if colon is None:
        raise ValueError("no JSON object with that key")
    start = colon.end()
    if body[start] not in b"{[":
        scalar = _SCALAR.match(body, start)
        return start, scalar.end() if scalar else start
    depth = 0
    for token in _TOKEN.finditer(body, start):
        first = body[token.start()]
        if first != 0x22:  # a string's quote
            depth += 1 if first in b"{[" else -1
            if not depth:
                return start, token.end()
    raise ValueError("no JSON object with that key")
