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

#: Seconds between two tokens of a stream.
ITL_BOUNDARIES_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1)

GATEWAY_REQUESTS = Metric(
    "Counter",
    "llm_gateway_requests",
    "Requests answered by the gateway: the model that was named, the version that answered.",
    ("model", "version", "status"),
)
GATEWAY_TTFB = Metric(
    "Histogram",
    "llm_gateway_time_to_first_byte_seconds",
    "Time from a request's arrival to the first byte of its response body.",
    ("model", "version"),
    LATENCY_BOUNDARIES_S,
)
GATEWAY_ITL = Metric(
    "Histogram",
    "llm_gateway_inter_token_seconds",
    "Mean time between two pieces of a streamed answer.",
    ("model", "version"),
    ITL_BOUNDARIES_S,
)
GATEWAY_DURATION = Metric(
    "Histogram",
    "llm_gateway_request_duration_seconds",
    "Time from a request's arrival to the last byte of its response.",
    ("model", "version"),
    LATENCY_BOUNDARIES_S,
)
GATEWAY_IN_FLIGHT = Metric("Gauge", "llm_gateway_in_flight_requests", "Requests being relayed now.")
GATEWAY_WAITING = Metric("Gauge", "llm_gateway_waiting_requests", "Requests waiting for a model.", ("model",))
GATEWAY_WAIT = Metric(
    "Histogram", "llm_gateway_wait_seconds", "Time a request waited for a model.", ("model",), LATENCY_BOUNDARIES_S
)
GATEWAY_REFUSALS = Metric(
    "Counter", "llm_gateway_refusals", "Requests the gateway refused, by OpenAI's error code.", ("tenant", "code")
)
GATEWAY_TOKENS = Metric(
    "Counter",
    "llm_gateway_tokens",
    "Tokens that answers report; kind is prompt or completion.",
    ("tenant", "model", "version", "kind"),
)
GATEWAY_COST = Metric(
    "Counter", "llm_gateway_cost", "What those tokens cost, in the currency of the prices.", ("tenant", "model")
)
GATEWAY_BUDGET_USED = Metric(
    "Gauge", "llm_gateway_budget_used_ratio", "Share of the month's budget that is spent.", ("tenant",)
)
GATEWAY_FALLBACKS = Metric(
    "Counter", "llm_gateway_fallbacks", "Requests that another model answered.", ("model", "version", "reason")
)
GATEWAY_SHADOWS = Metric("Counter", "llm_gateway_shadow_requests", "Copies sent to a shadow.", ("version", "status"))
GATEWAY_VERSION_OFF = Metric(
    "Gauge",
    "llm_gateway_version_off",
    "1 while a version is taken out because it broke its SLO.",
    ("model", "version", "rule"),
)
GATEWAY_STORE_DOWN = Metric("Gauge", "llm_gateway_store_down", "1 while Redis cannot be reached.")
RAG_STAGE = Metric(
    "Histogram",
    "llm_rag_stage_duration_seconds",
    "Time spent in one stage of a RAG answer (rewrite, embed, keywords, search, feedback, rerank, generate).",
    ("pipeline", "stage"),
    LATENCY_BOUNDARIES_S,
)
RAG_DEGRADED = Metric(
    "Counter", "llm_rag_degraded_answers", "Answers given without one of their stages.", ("pipeline", "stage")
)
RAG_SOURCES = Metric(
    "Histogram",
    "llm_rag_sources",
    "Chunks put before the model for a question.",
    ("pipeline",),
    (0.5, 1.5, 3.5, 5.5, 10.5, 20.5, 50.5),
)
RAG_UNFOUND = Metric("Counter", "llm_rag_unfound_questions", "Questions for which no chunk was found.", ("pipeline",))
RAG_STORE_CALLS = Metric(
    "Counter", "llm_rag_store_calls", "Calls of a Milvus server; outcome is answered or failed.", ("outcome",)
)
RAG_CHUNKS = Metric("Counter", "llm_rag_chunks_ingested", "Chunks written to the vector store.", ("pipeline",))
AGENT_REQUEST = Metric(
    "Histogram",
    "llm_agent_request_duration_seconds",
    "Time an agent worked on a request; ending is answered, or the limit that ended it.",
    ("agent", "ending"),
    LATENCY_BOUNDARIES_S,
)
AGENT_TURN = Metric(
    "Histogram",
    "llm_agent_turn_duration_seconds",
    "Time of one turn of an agent's model.",
    ("agent",),
    LATENCY_BOUNDARIES_S,
)
AGENT_TOOL = Metric(
    "Histogram",
    "llm_agent_tool_duration_seconds",
    "Time of one call of a tool; outcome is ok or failed.",
    ("agent", "tool", "outcome"),
    LATENCY_BOUNDARIES_S,
)
BATCH_REPLIES = Metric(
    "Counter",
    "llm_batch_replies",
    "Replies to lines of batches; outcome is answered, or refused for the moment.",
    ("outcome",),
)
BATCH_ENDED = Metric("Counter", "llm_batch_ended", "Batches that are over, by their status.", ("status",))

ALL = (
    GATEWAY_REQUESTS,
    GATEWAY_TTFB,
    GATEWAY_ITL,
    GATEWAY_DURATION,
    GATEWAY_IN_FLIGHT,
    GATEWAY_WAITING,
    GATEWAY_WAIT,
    GATEWAY_REFUSALS,
    GATEWAY_TOKENS,
    GATEWAY_COST,
    GATEWAY_BUDGET_USED,
    GATEWAY_FALLBACKS,
    GATEWAY_SHADOWS,
    GATEWAY_VERSION_OFF,
    GATEWAY_STORE_DOWN,
    RAG_STAGE,
    RAG_DEGRADED,
    RAG_SOURCES,
    RAG_UNFOUND,
    RAG_STORE_CALLS,
    RAG_CHUNKS,
    AGENT_REQUEST,
    AGENT_TURN,
    AGENT_TOOL,
    BATCH_REPLIES,
    BATCH_ENDED,
)
