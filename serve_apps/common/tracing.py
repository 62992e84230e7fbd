"""Traces, as OpenTelemetry has them: of a gateway's requests, a pipeline's stages, an agent's turns and tools.

There are none unless OpenTelemetry's own variables name a collector; the others (the sampler and its argument, the
service's name, headers) mean what they mean to its SDK, which is not even imported before. What was asked and answered
goes into no span, and neither does a name that a client or a model made up.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from serve_apps.common.spans import Attributes, Span, Spans

#: Where spans go, over OTLP/HTTP; the second is the whole URL, for traces alone.
_COLLECTORS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
#: The headers of W3C Trace Context.
HEADERS = ("traceparent", "tracestate")

#: None: off.
_spans: "Spans | None" = None
#: What is going on in this task, or the caller's span. Not OpenTelemetry's own variable: that one complains when a
#: generator ends in another task than it began in, as streams do.
_current: "ContextVar[Context | None]" = ContextVar("trace", default=None)


def configure() -> None:
    """Begin to trace, if the environment names a collector."""
    global _spans
    if any(map(os.environ.get, _COLLECTORS)):
        from serve_apps.common.spans import Spans

        _spans = Spans()


def is_on() -> bool:
    """Whether anything is traced."""
    return _spans is not None


def received(headers: Mapping[str, str]) -> "Span | None":
    """The span of a request that has just come in, as a part of its caller's trace; None if nothing is traced."""
    return None if _spans is None else _spans.received(headers)


def join(headers: Mapping[str, str]) -> None:
    """What this task does from now on is a part of the caller's trace."""
    if _spans is not None:
        from serve_apps.common.spans import parent

        _current.set(parent(headers))


@contextmanager
def span(name: str, attributes: "Attributes") -> "Iterator[Span | None]":
    """A span around a piece of work; requests made meanwhile are parts of it. None if nothing is traced."""
    if _spans is None:
        yield None
        return
    outer = _current.get()
    begun = _spans.begin(name, outer)
    _current.set(begun.context)
    try:
        yield begun
    except (Exception, asyncio.CancelledError) as error:
        begun.fail(type(error).__name__)
        raise
    finally:
        _current.set(outer)
        begun.end(attributes)


def headers(of: "Span | None" = None) -> dict[str, str]:
    """What makes a request a part of a span, of the one that is open unless another is named; empty without one."""
    context = of.context if of is not None else _current.get()
    if context is None:
        return {}
    from serve_apps.common import spans

    return spans.headers(context)
