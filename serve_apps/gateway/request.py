"""What a request to a model asks for, and its body as it goes upstream."""

from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

import orjson

from serve_apps.common.errors import InvalidRequest
from serve_apps.common.protocol import ANTHROPIC_PATHS, FORM_PATHS, VERSION_HEADER
from serve_apps.gateway.form import read_fields
from serve_apps.gateway.headers import RawHeaders, find, session_of
from serve_apps.gateway.splice import field, set_fields

T = TypeVar("T")

#: The paths that generate text, and the fields that say how much. The first is the one we set.
_LENGTHS: dict[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("max_completion_tokens", "max_tokens"),
    "/v1/completions": ("max_tokens",),
    "/v1/responses": ("max_output_tokens",),
    "/v1/messages": ("max_tokens",),
}
#: Where an answer has so many tokens unless the client asks for more. Without an entry: as many as the model can.
_DEFAULT_LENGTHS = {"/v1/completions": 16}
#: The fields a prompt is made of, in the order in which chat templates put them.
_PROMPTS: dict[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("tools", "messages"),
    "/v1/completions": ("prompt",),
    "/v1/responses": ("instructions", "tools", "input"),
    "/v1/messages": ("system", "tools", "messages"),
}
#: The paths whose streams tell their usage only to those who ask.
USAGE_ON_REQUEST = frozenset({"/v1/chat/completions", "/v1/completions"})
#: The paths whose body has vLLM's ``priority``.
_PRIORITY_PATHS = USAGE_ON_REQUEST | {
    *("/v1/responses", "/v1/embeddings", "/v1/rerank", "/rerank", "/v2/rerank", "/v1/score", "/score")
}
_CONTINUOUS = "continuous_usage_stats"
#: What counts as true in a form: pydantic's words.
_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
_TYPES: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number with a fraction or beyond 64 bits",
    str: "a string",
    list: "an array",
    dict: "an object",
}


class Disconnected(Exception):
    """The client went away before its request was complete."""


@dataclass(slots=True)
class Wish:
    """What the gateway reads of a request; everything else is the upstream's business."""

    path: str
    body: bytes
    document: dict[str, Any] | None
    """The body, if it is JSON."""
    model: object
    """What stands in its field ``model``; None if there is none."""
    stream: bool = False
    user: str | None = None
    """The end user the client acts for."""
    session: str | None = None
    """The conversation it belongs to."""
    pin: str | None = None
    """The version that must answer."""
    max_tokens: int | None = None
    """Tokens one answer may have, if the client says."""
    choices: int = 1
    """Answers it asks for: choices, times prompts."""
    include_usage: bool = False
    """Whether the client gets a stream's usage: it asked, or the path always tells."""
    place: tuple[int, int] | None = None
    """Where the model's name stands in a form."""

    @property
    def generates(self) -> bool:
        """Whether text is generated."""
        return self.path in _LENGTHS

    def forget(self) -> None:
        """Let go of the parsed body, which can be twenty times as large; ``prefix`` and ``outbound`` are over then."""
        self.document = None

    def prefix(self) -> bytes:
        """The prompt as bytes that begin alike where prompts begin alike; empty where no engine caches beginnings."""
        if self.document is None:
            return b""
        parts = [self.document[name] for name in _PROMPTS.get(self.path, ()) if name in self.document]
        try:
            return b"".join(part.encode() if isinstance(part, str) else orjson.dumps(part) for part in parts)
        except orjson.JSONEncodeError:  # nested deeper than orjson writes, though it reads that
            return b""

    def outbound(
        self,
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        priority: int | None = None,
        include_usage: bool = False,
    ) -> bytes:
        """The body to send: the very one that came if nothing has to change, else with only that changed.

        Args:
            model: the name the upstream knows the model by.
            max_tokens: where the client sets none, and the path takes one.
            priority: whatever the client says, where the path takes one.
            include_usage: whether a stream must end with its usage, asked for or not.
        """
        if self.document is None:
            return self._renamed(model)
        fields: dict[str, bytes] = {}
        if model is not None and model != self.model:
            fields["model"] = orjson.dumps(model)
        lengths = _LENGTHS.get(self.path, ()) if self.max_tokens is None else ()
        if max_tokens is not None and lengths and max_tokens < _DEFAULT_LENGTHS.get(self.path, inf):
            fields[lengths[0]] = b"%d" % max_tokens
        if priority is not None and self.path in _PRIORITY_PATHS and self.document.get("priority") != priority:
            fields["priority"] = b"%d" % priority
        if include_usage and self.stream and not self.include_usage:
            fields["stream_options"] = self._with_usage()
        return set_fields(self.body, self.document, fields) if fields else self.body

    def _renamed(self, model: str | None) -> bytes:
        if model is None or model == self.model or self.place is None:
            return self.body
        start, end = self.place
        return b"".join((self.body[:start], model.encode(), self.body[end:]))

    def _with_usage(self) -> bytes:
        options = self.document and self.document.get("stream_options")
        if not options:
            return b'{"include_usage":true}'
        fields = {"include_usage": b"true"}
        if _CONTINUOUS in options:  # without usage it had no effect
            fields[_CONTINUOUS] = b"false"
        return set_fields(field(self.body, "stream_options"), options, fields)


def read(path: str, headers: RawHeaders, body: bytes) -> Wish:
    """What a request to a model's ``path`` asks for.

    Raises:
        InvalidRequest: the body is not what the path takes, or what we hold clients to has the wrong type.
    """
    session = session_of(headers)
    pin = _text(find(headers, VERSION_HEADER.encode()))
    content_type = _text(find(headers, b"content-type")) or ""
    if path in FORM_PATHS:
        return _read_form(path, content_type, body, session, pin)
    document = _object(body)
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise InvalidRequest(
            f"This path takes JSON: send the header content-type: application/json, not {content_type[:80] or 'none'}.",
            code="unsupported_media_type",
        )
    generates = path in _LENGTHS
    stream = generates and _typed(document, "stream", bool) is True
    user = document.get("safety_identifier") or document.get("user")
    if path in ANTHROPIC_PATHS and isinstance(metadata := document.get("metadata"), dict):
        user = metadata.get("user_id")
    lengths = [count for name in _LENGTHS.get(path, ()) if (count := _count(document, name)) is not None]
    key = document.get("prompt_cache_key")
    return Wish(
        path,
        body,
        document,
        document.get("model"),
        stream,
        user if isinstance(user, str) else None,
        session or (key if isinstance(key, str) else None),
        pin,
        # An upstream may go by either of two, so the larger one counts.
        max(lengths, default=None),
        _choices(path, document),
        path not in USAGE_ON_REQUEST or _asks_for_usage(document),
    )


def _read_form(path: str, content_type: str, body: bytes, session: str | None, pin: str | None) -> Wish:
    fields = read_fields(content_type, body)
    model = fields.get("model")
    stream = fields.get("stream")
    return Wish(
        path,
        body,
        None,
        model.value if model is not None else None,
        stream is not None and stream.value.strip().lower() in _TRUE,
        session=session,
        pin=pin,
        include_usage=True,
        place=model.place if model is not None else None,
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"The request body is not JSON in UTF-8: {error.msg} (line {error.lineno}, column {error.colno}).",
            code="invalid_json",
        ) from None
    if not isinstance(document, dict):
        raise InvalidRequest("The request body must be a JSON object.", code="invalid_json")
    return document


def _typed(document: dict[str, Any], name: str, kind: type[T], inside: str = "") -> T | None:
    """A field that we go by. vLLM would also take ``"true"`` or ``"5"``, and so read something else than we do."""
    value = document.get(name)
    if value is None or type(value) is kind:
        return value
    raise InvalidRequest(
        f"Invalid type for '{inside}{name}': expected {_TYPES[kind]}, got {_TYPES[type(value)]}.",
        param=inside + name,
        code="invalid_type",
    )


def _count(document: dict[str, Any], name: str) -> int | None:
    """A number of tokens. It is reserved, so that a negative one would give the tenant tokens."""
    value = _typed(document, name, int)
    if value is not None and value < 0:
        raise InvalidRequest(
            f"Invalid '{name}': integer below minimum value. Expected a value >= 0, but got {value} instead.",
            param=name,
            code="integer_below_min_value",
        )
    return value


def _choices(path: str, document: dict[str, Any]) -> int:
    if path not in USAGE_ON_REQUEST:
        return 1
    prompt = document.get("prompt")
    several = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
    prompts = len(prompt) if several and isinstance(prompt, list) else 1
    return prompts * max(1, _typed(document, "n", int) or 1, _typed(document, "best_of", int) or 1)


def _asks_for_usage(document: dict[str, Any]) -> bool:
    options = _typed(document, "stream_options", dict)
    return options is not None and _typed(options, "include_usage", bool, "stream_options.") is True


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value else None


def is_multipart(path: str) -> bool:
    """Whether a model's ``path`` takes a form with a file, which may be larger than other bodies."""
    return path in FORM_PATHS
