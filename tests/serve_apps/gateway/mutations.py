"""Bodies that clients should not send: valid ones with something wrong in them, and noise. The same for each seed."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

TEXT = {"role": "user", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

#: A valid body for each path, with what people really send.
VALID: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [
        {"model": "chat", "messages": [TEXT]},
        {
            "model": "chat",
            "messages": [TEXT],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 5,
        },
        {
            "model": "chat",
            "messages": [TEXT],
            "tools": [TOOL],
            "n": 2,
            "temperature": 0.5,
            "logprobs": True,
            "user": "u",
        },
        {"model": "chat", "messages": [{"role": "user", "content": [{"type": "text", "text": "hé\u4e2d\U0001f600"}]}]},
    ],
    "/v1/completions": [{"model": "chat", "prompt": ["a", "b"], "best_of": 2, "max_tokens": 3, "stop": ["\n"]}],
    "/v1/embeddings": [{"model": "embed", "input": ["a", "b"], "encoding_format": "float"}],
    "/v1/rerank": [{"model": "rank", "query": "q", "documents": ["a", "b"], "top_n": 1}],
    "/v1/messages": [{"model": "chat", "max_tokens": 5, "messages": [TEXT], "system": "s", "stream": True}],
}

#: Values nobody expects, as JSON and as what only looks like it.
ODD: list[bytes] = [
    *(b"null", b"true", b"-1", b"0", b"1e999", b"-1e-999", b"NaN", b"Infinity", b"9" * 400, b"1.0", b"1e2", b"-0"),
    *(
        b'""',
        b'"\\u0000"',
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\x00"',
        b'"\xff\xfe"',
        b'"\xc0\xaf"',
        b'"' + b"x" * 5000 + b'"',
    ),
    *(b"[]", b"{}", b"[[[]]]", b"[" * 600 + b"]" * 600, b"[" * 3000, b'{"a":' * 600 + b"1" + b"}" * 600),
    *(
        b"18446744073709551616",
        b"-9223372036854775809",
        b"'x'",
        b"undefined",
        b"01",
        b"+1",
        b"/**/1",
        b'"a"b"',
        b"2147483648",
    ),
    *(
        b'"../../etc/passwd"',
        b'"chat\\r\\nx: y"',
        b'"chat\\u0000"',
        b'"CHAT"',
        b'" chat"',
        b'["chat"]',
        b'{"model":"chat"}',
    ),
]


def bodies(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """``count`` paths and bodies."""
    chance = random.Random(seed)
    paths = list(VALID)
    for _ in range(count):
        path = chance.choice(paths)
        document = chance.choice(VALID[path])
        body = chance.choice(_WAYS)(chance, document)
        for _ in range(chance.choice((0, 0, 0, 1, 3))):
            body = chance.choice(_NOISE)(chance, body)
        yield path, body


def _as_it_is(_chance: random.Random, document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


def _odd_value(chance: random.Random, document: dict[str, Any]) -> bytes:
    """One value, anywhere in it, is another."""
    body = json.dumps(document)
    values = [json.dumps(value) for value in _values(document)]
    value = chance.choice(values)
    return body.encode().replace(value.encode(), chance.choice(ODD), 1)


def _odd_field(chance: random.Random, document: dict[str, Any]) -> bytes:
    """A field of its own, a new one, or one that is there twice, with an odd value."""
    name = chance.choice(
        [*document, "stream", "max_tokens", "max_completion_tokens", "n", "user", "seed", "priority", "", "\x00"]
    )
    field = json.dumps(name).encode() + b": " + chance.choice(ODD)
    rest = json.dumps({key: value for key, value in document.items() if key != name or chance.random() < 0.5}).encode()
    return b"{" + field + b", " + rest[1:] if chance.random() < 0.5 else rest[:-1] + b", " + field + b"}"


def _less(chance: random.Random, document: dict[str, Any]) -> bytes:
    return json.dumps({key: value for key, value in document.items() if chance.random() < 0.6}).encode()


def _only_odd(chance: random.Random, _document: dict[str, Any]) -> bytes:
    return chance.choice(ODD)


def _random_bytes(chance: random.Random, _document: dict[str, Any]) -> bytes:
    return chance.randbytes(chance.randrange(200))


def _values(value: Any) -> Iterator[Any]:
    yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _values(inner)


def _flip(chance: random.Random, body: bytes) -> bytes:
    at = chance.randrange(len(body) + 1)
    return body[:at] + bytes([chance.randrange(256)]) + body[at + 1 :]


def _cut(chance: random.Random, body: bytes) -> bytes:
    return body[: chance.randrange(len(body) + 1)]


def _double(chance: random.Random, body: bytes) -> bytes:
    start, end = sorted((chance.randrange(len(body) + 1), chance.randrange(len(body) + 1)))
    return body[:end] + body[start:]


def _insert(chance: random.Random, body: bytes) -> bytes:
    at = chance.randrange(len(body) + 1)
    return (
        body[:at] + chance.choice([*ODD, b"\xef\xbb\xbf", b"\x1f\x8b", b"\r\n", b"\x00", b'"', b"\\", b","]) + body[at:]
    )


def _other_encoding(_chance: random.Random, body: bytes) -> bytes:
    return body.decode("latin-1").encode("utf-16")


_WAYS: list[Callable[[random.Random, dict[str, Any]], bytes]] = [
    *(_as_it_is, _odd_value, _odd_value, _odd_field, _odd_field, _less, _only_odd, _random_bytes),
]
_NOISE: list[Callable[[random.Random, bytes], bytes]] = [_flip, _cut, _double, _insert, _other_encoding]
