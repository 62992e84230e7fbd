import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from serve_apps.common import tracing
from tests.serve_apps.common.collector import Collector, attributes, collector, lineage  # noqa: F401  # a fixture

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "tracestate": "vendor=1"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-00"}


def named(headers: dict[str, str]) -> list[str]:
    """The parts of a traceparent: version, trace, span, flags."""
    return headers["traceparent"].split("-")


def test_without_a_collector_nothing_is_traced_and_nothing_imported() -> None:
    script = (
        "import sys\nfrom serve_apps.common import tracing\ntracing.configure()\n"
        f"tracing.join({CALLER})\n"
        "with tracing.span('work', {}) as span:\n    assert span is None and tracing.headers() == {}\n"
        "assert tracing.received({}) is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={"PATH": ""}, timeout=60)


def test_work_is_a_part_of_the_callers_trace_and_passes_it_on(collector: Collector) -> None:  # noqa: F811
    async def work() -> dict[str, str]:
        tracing.join(CALLER)
        with tracing.span("outer", {"size": 3}), tracing.span("inner", {}):
            return tracing.headers()

    passed_on = asyncio.run(work())
    spans = collector.trace(TRACE, 2)
    inner, outer = sorted(spans, key=lambda span: span.name)
    assert lineage(inner, spans) == ("outer", "inner")
    assert outer.parent_span_id.hex() == "b7ad6b7169203331"
    assert attributes(outer) == {"size": 3}
    assert named(passed_on)[1:] == [TRACE, inner.span_id.hex(), "01"]
    assert passed_on["tracestate"] == "vendor=1"
    assert collector.services == {"tested"}


def test_who_does_not_sample_is_not_traced_and_passed_on_all_the_same(collector: Collector) -> None:  # noqa: F811
    async def work() -> dict[str, str]:
        tracing.join(UNSAMPLED)
        with tracing.span("unsampled", {}):
            passed_on = tracing.headers()
        tracing.join({"traceparent": CALLER["traceparent"]})
        with tracing.span("sampled", {}):
            return passed_on

    passed_on = asyncio.run(work())
    assert named(passed_on)[1] == TRACE
    assert named(passed_on)[3] == "00"
    assert [span.name for span in collector.trace(TRACE, 1)] == ["sampled"]


@pytest.mark.parametrize("given", ["", "00-xyz-1-01", f"00-{'0' * 32}-b7ad6b7169203331-01", "ff" * 400])
def test_what_is_no_trace_begins_one(collector: Collector, given: str) -> None:  # noqa: F811
    span = tracing.received({"traceparent": given})
    assert span is not None
    begun = named(tracing.headers(span))[1]
    span.end({}, "GET /v1/models")
    assert [(each.name, each.parent_span_id) for each in collector.trace(begun, 1)] == [("GET /v1/models", b"")]


def test_a_failure_is_told_by_its_kind_and_not_in_its_words(collector: Collector) -> None:  # noqa: F811
    def fails() -> None:
        tracing.join(CALLER)
        with tracing.span("work", {}):
            raise ValueError("what the client said")

    with pytest.raises(ValueError, match="what the client said"):
        fails()
    [span] = collector.trace(TRACE, 1)
    assert (span.status.code, attributes(span)) == (2, {"error.type": "ValueError"})
    assert b"what the client said" not in span.SerializeToString()


def test_a_stream_that_ends_in_another_task_is_one_span(collector: Collector) -> None:  # noqa: F811
    async def stream() -> AsyncIterator[int]:
        with tracing.span("stream", {}):
            yield 1
            yield 2

    async def work() -> None:
        tracing.join(CALLER)
        pieces = stream()
        await anext(pieces)

        async def rest() -> list[int]:
            return [piece async for piece in pieces]

        assert await asyncio.create_task(rest()) == [2]

    asyncio.run(work())
    [span] = collector.trace(TRACE, 1)
    assert span.status.code == 0
