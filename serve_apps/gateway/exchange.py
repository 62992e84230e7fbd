"""One request and its answer, as metrics and logs tell of it."""

import logging
import time
from dataclasses import dataclass, field
from types import ModuleType

from serve_apps.common import metrics

logger = logging.getLogger(__name__)

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
    stream: bool = False
    status: int = 0
    """Of the response that was begun; 0 while there is none."""
    first_byte_s: float | None = None
    """Seconds from the request's arrival to the first byte of the response body."""
    broken: bool = False
    """Whether the answer was cut short, by whomever."""

    def began(self, status: int) -> None:
        """Note that the response starts now."""
        self.status = status
        self.first_byte_s = time.perf_counter() - self.started_s

    def client_gone(self) -> None:
        """Note that nobody is there any more to answer."""
        self.broken = True
        self.status = self.status or CLIENT_GONE


class Telemetry:
    """Metrics and one log line for every exchange."""

    def __init__(self, serve_metrics: ModuleType) -> None:
        """``serve_metrics`` is ``ray.serve.metrics``: in a replica nothing else is scraped."""
        self._requests = metrics.create(metrics.GATEWAY_REQUESTS, serve_metrics)
        self._first_byte = metrics.create(metrics.GATEWAY_TTFB, serve_metrics)
        self._duration = metrics.create(metrics.GATEWAY_DURATION, serve_metrics)
        self._in_flight = metrics.create(metrics.GATEWAY_IN_FLIGHT, serve_metrics)

    def in_flight(self, count: int) -> None:
        """How many requests are being relayed now."""
        self._in_flight.set(count)

    def finished(self, exchange: Exchange) -> None:
        """Count and log an exchange that is over."""
        duration_s = time.perf_counter() - exchange.started_s
        model = {"model": exchange.model}
        self._requests.inc(tags={**model, "status": str(exchange.status)})
        self._duration.observe(duration_s, tags=model)
        if exchange.first_byte_s is not None:
            self._first_byte.observe(exchange.first_byte_s, tags=model)
        logger.info(
            "request finished",
            extra={
                "method": exchange.method,
                "path": exchange.path,
                "tenant": exchange.tenant,
                "model": exchange.model,
                "stream": exchange.stream,
                "status": exchange.status,
                "broken": exchange.broken,
                "first_byte_s": exchange.first_byte_s and round(exchange.first_byte_s, 4),
                "duration_s": round(duration_s, 4),
            },
        )
