"""Every metric the applications export, named once.

Ray adds the prefix ``ray_`` and the labels application, deployment and replica, and ``_total`` to counters. In a
replica only ``ray.serve.metrics`` is scraped (prometheus-client's registry is not), so an app creates its metrics
with ``create(SPEC, ray.serve.metrics)``.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal


@dataclass(frozen=True)
class Metric:
    """A metric's name (without ``ray_``), kind, meaning, labels and, for a histogram, bucket bounds."""

    kind: Literal["Counter", "Gauge", "Histogram"]
    name: str
    description: str
    tags: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()

    @property
    def series(self) -> str:
        """The series in a scrape (a histogram's without ``_bucket``, ``_sum`` and ``_count``)."""
        return f"ray_{self.name}" + ("_total" if self.kind == "Counter" else "")


def create(metric: Metric, serve_metrics: ModuleType) -> Any:
    """The live metric of ``ray.serve.metrics`` for ``metric``."""
    arguments: dict[str, Any] = {"description": metric.description, "tag_keys": metric.tags}
    if metric.boundaries:
        arguments["boundaries"] = list(metric.boundaries)
    return getattr(serve_metrics, metric.kind)(metric.name, **arguments)


#: Seconds; from a cached embedding to a model that starts from zero.
LATENCY_BOUNDARIES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

GATEWAY_REQUESTS = Metric("Counter", "llm_gateway_requests", "Requests answered by the gateway.", ("model", "status"))
GATEWAY_TTFB = Metric(
    "Histogram",
    "llm_gateway_time_to_first_byte_seconds",
    "Time from a request's arrival to the first byte of its response body.",
    ("model",),
    LATENCY_BOUNDARIES_S,
)
GATEWAY_DURATION = Metric(
    "Histogram",
    "llm_gateway_request_duration_seconds",
    "Time from a request's arrival to the last byte of its response.",
    ("model",),
    LATENCY_BOUNDARIES_S,
)
GATEWAY_IN_FLIGHT = Metric("Gauge", "llm_gateway_in_flight_requests", "Requests being relayed now.")
RAG_STAGE = Metric(
    "Histogram",
    "llm_rag_stage_duration_seconds",
    "Time spent in one stage of a RAG answer (embed, search, rerank, generate).",
    ("pipeline", "stage"),
    LATENCY_BOUNDARIES_S,
)
RAG_DEGRADED = Metric(
    "Counter", "llm_rag_degraded_answers", "Answers given without one of their stages.", ("pipeline", "stage")
)
RAG_CHUNKS = Metric("Counter", "llm_rag_chunks_ingested", "Chunks written to the vector store.", ("pipeline",))

ALL = (
    GATEWAY_REQUESTS,
    GATEWAY_TTFB,
    GATEWAY_DURATION,
    GATEWAY_IN_FLIGHT,
    RAG_STAGE,
    RAG_DEGRADED,
    RAG_CHUNKS,
)
