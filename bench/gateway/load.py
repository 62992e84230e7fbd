"""What the load generator is asked to send and what it answers; both go through a pipe as a line of JSON."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Load:
    """Connections that send the same request again and again."""

    port: int
    headers: dict[str, str]
    body: str
    connections: int = 1
    path: str = "/v1/chat/completions"
    host: str = "127.0.0.1"
    requests: int = 0
    """How many requests each connection sends; 0: as many as fit in ``seconds``."""
    seconds: float = 0
    """How long requests are begun; one that is under way is finished."""
    interval_s: float = 0
    """Seconds between two requests of all connections together; 0: each as soon as the one before has ended. The time
    to the first token then counts from the moment that was planned, so that a slow server cannot slow the clock."""
    spread_s: float = 0
    """Seconds over which the connections begin."""


@dataclass(slots=True)
class Outcome:
    """What became of a load."""

    first_ms: list[float] = field(default_factory=list)
    """Of each request, the milliseconds to its first event, or to its first byte where it is no stream."""
    whole_ms: list[float] = field(default_factory=list)
    """Of each request, the milliseconds to its end."""
    events: int = 0
    """Server-sent events of all requests."""
    failed: int = 0
    """Requests without a whole answer of status 200."""
    problem: str = ""
    """What the first failure was."""
    seconds: float = 0
    """From the first request's begin to the last one's end."""
