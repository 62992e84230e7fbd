"""A collector that takes spans over OTLP/HTTP, as small as one can be, and a fixture that traces to it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.requests import Request
from starlette.responses import Response

from serve_apps.common import tracing
from serve_apps.common.middleware import Receive, Scope, Send
from tests.serve_apps.gateway.servers import serving, until


@dataclass
class Collector:
    """An ASGI app that remembers the spans it is sent."""

    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        assert (request.method, request.url.path) == ("POST", "/v1/traces")
        sent = ExportTraceServiceRequest.FromString(await request.body())
        for resource in sent.resource_spans:
            told = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.services.add(told["service.name"])
            self.spans += [span for scoped in resource.scope_spans for span in scoped.spans]
        answer = Response(ExportTraceServiceResponse().SerializeToString(), media_type="application/x-protobuf")
        await answer(scope, receive, send)

    def trace(self, trace_id: str, size: int) -> list[Span]:
        """The spans of a trace, once there are ``size``."""
        until(lambda: len(self._of(trace_id)) >= size)
        return self._of(trace_id)

    def _of(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id.hex() == trace_id]


def lineage(span: Span, spans: list[Span]) -> tuple[str, ...]:
    """The names of a span's ancestors and its own."""
    above = next((each for each in spans if each.span_id == span.parent_span_id), None)
    return (*(lineage(above, spans) if above is not None else ()), span.name)


def attributes(span: Span) -> dict[str, str | int | float | bool]:
    """What a span says."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector, and tracing on while the test runs."""
    collector = Collector()
    with serving(collector) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "tested")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        monkeypatch.setattr(tracing, "_spans", None)
        tracing.configure()
        yield collector
        assert tracing._spans is not None
        tracing._spans.close()
