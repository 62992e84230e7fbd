"""One request and its answer, as metrics and logs tell of it."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serve_apps.common.spans import Span

#: The label of requests whose model is not in the table: names that clients invent must not become series.
UNKNOWN_MODEL = "unknown"
#: The status of a request whose client left before the answer was complete (nginx' number for it).
CLIENT_GONE = 499


@dataclass(slots=True)
class Exchange:
    """What became of one request; filled in as it goes."""

    request_id: str
    method: str
    path: str
    started_s: float = field(default_factory=time.perf_counter)
    tenant: str = ""
    model: str = UNKNOWN_MODEL
    """What the client named, if it is in the table: a route, model or pipeline."""
    version: str = ""
    """The model that answered, or was asked last."""
    adapter: str = ""
    """The LoRA adapter of it, if one was named."""
    stream: bool = False
    status: int = 0
    """Of the response that was begun; 0 while there is none."""
    first_byte_s: float | None = None
    """Seconds from the request's arrival to the first byte of the response body."""
    last_byte_s: float | None = None
    """Seconds from the request's arrival to the last piece of the answer that the upstream sent."""
    asked_s: float = 0
    """Seconds from the request's arrival to when its version was asked: reading the body, waiting for the model."""
    pieces: int = 0
    """Pieces the answer came in: for a stream, about one for each token."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0
    """What the tokens cost, in the currency of the prices."""
    broken: bool = False
    """Whether the answer was cut short, by whomever."""
    audited: bool = False
    """Whether the audit log tells of it, so that no other line need."""
    client_left: bool = False
    """Whether it was the client that left."""
    late: bool = False
    """Whether its first token was counted as late, for the canary, while it was waited for."""
    span: "Span | None" = None
    """What traces tell of it, where there are traces."""

    def began(self, status: int) -> None:
        """Note that the response starts now."""
        self.status = status
        self.first_byte_s = time.perf_counter() - self.started_s

    def client_gone(self) -> None:
        """Note that nobody is there any more to answer."""
        self.broken = self.client_left = True
        self.status = self.status or CLIENT_GONE

    def told(self) -> dict[str, Any]:
        """What a log line says of it; never what was said in it."""
        return {
            "method": self.method,
            "path": self.path,
            "tenant": self.tenant,
            "model": self.model,
            "version": self.version,
            "stream": self.stream,
            "status": self.status,
            "broken": self.broken,
            "first_byte_s": self.first_byte_s and round(self.first_byte_s, 4),
            "duration_s": round(time.perf_counter() - self.started_s, 4),
        } | ({"adapter": self.adapter} if self.adapter else {})

    def end_span(self, span: "Span", route: str) -> None:
        """Say in its span how it went, in OpenTelemetry's words where it has some; ``route`` is one of few paths."""
        if self.broken or self.status >= 500:
            span.fail("broken" if self.broken else str(self.status))
        told: dict[str, str | int | float | bool] = {
            "llm_serving.request_id": self.request_id,
            "llm_serving.tenant": self.tenant,
            "llm_serving.version": self.version,
            "llm_serving.stream": self.stream,
            "http.request.method": self.method,
            "http.response.status_code": self.status,
            "gen_ai.request.model": self.model,
            "gen_ai.usage.input_tokens": self.prompt_tokens,
            "gen_ai.usage.output_tokens": self.completion_tokens,
        }
        if self.first_byte_s is not None:
            told["llm_serving.first_byte_s"] = self.first_byte_s
        span.end(told, f"{self.method} {route}")

    @property
    def inter_token_s(self) -> float | None:
        """The mean time between two pieces of a streamed answer, in seconds; None if there were not two."""
        if not self.stream or self.pieces < 2 or self.first_byte_s is None or self.last_byte_s is None:
            return None
        return (self.last_byte_s - self.first_byte_s) / (self.pieces - 1)
