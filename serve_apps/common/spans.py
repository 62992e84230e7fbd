"""Spans of OpenTelemetry's SDK; imported only where ``tracing`` is on."""

from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Attributes = Mapping[str, str | int | float | bool]

_W3C = TraceContextTextMapPropagator()


class Span:
    """Something that is going on."""

    def __init__(self, tracer: Tracer, name: str, parent: Context | None, kind: SpanKind) -> None:
        self._span = tracer.start_span(name, parent, kind)
        self.context = set_span_in_context(self._span, parent)

    def fail(self, reason: str) -> None:
        """Note that it did not succeed; ``reason`` is one of few."""
        self._span.set_attribute("error.type", reason)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self, attributes: Attributes, name: str | None = None) -> None:
        """It is over; ``name`` replaces the one it has."""
        if name is not None:
            self._span.update_name(name)
        self._span.set_attributes(attributes)
        self._span.end()


class Spans:
    """Makes spans, and sends those that are over to the collector now and then; one for a process."""

    def __init__(self) -> None:
        """All that is to be said is said by the variables of the environment that OpenTelemetry has for it."""
        self._provider = TracerProvider()
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("serve_apps")

    def begin(self, name: str, parent: Context | None) -> Span:
        """Something begins here."""
        return Span(self._tracer, name, parent, SpanKind.INTERNAL)

    def received(self, headers: Mapping[str, str]) -> Span:
        """A request has come in."""
        return Span(self._tracer, "request", parent(headers), SpanKind.SERVER)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def parent(headers: Mapping[str, str]) -> Context:
    """The trace that a request's headers name, by W3C Trace Context; an empty one where they name none."""
    return _W3C.extract(headers)


def headers(context: Context) -> dict[str, str]:
    """What makes a request a part of it."""
    named: dict[str, str] = {}
    _W3C.inject(named, context)
    return named
