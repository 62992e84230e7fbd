"""What the gateway's metrics show, added up in memory and told to Ray together twice a second.

A call of Ray's metrics costs 3.4 µs and more, and a request has half a dozen things to count: added up first, they are
as many calls as there are series that changed, however many requests there are.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from types import ModuleType

from serve_apps.common import metrics
from serve_apps.common.metrics import Metric
from serve_apps.gateway.exchange import Exchange
from serve_apps.gateway.histograms import Histogram

logger = logging.getLogger(__name__)

#: Between two times that Ray is told, in seconds. Gauges are among it, whether they have changed or not: Ray drops one
#: that was not set for two of its reports, which are 10 seconds apart by default.
TOLD_EVERY_S = 0.5
#: Every so many times all gauges of histograms are among it, too; else those that have changed.
TOLD_AGAIN = 4
#: Calls of Ray's in a row, about 100 µs: ten models in use have 500 of them.
TOLD_AT_ONCE = 16

#: A metric's name, and its tags with their values.
Series = tuple[str, tuple[tuple[str, str], ...]]
#: A metric's name, and the call that tells Ray of it.
_Call = tuple[str, Callable[[], None]]


def series(metric: Metric, /, **tags: str) -> Series:
    """One series of a metric."""
    return metric.name, tuple(tags.items())


class Telemetry:
    """Metrics for every exchange, a log line for those that failed, and the numbers the gateway's parts report."""

    def __init__(self, serve_metrics: ModuleType) -> None:
        """``serve_metrics`` is ``ray.serve.metrics``: in a replica nothing else is scraped."""
        ours = [metric for metric in metrics.ALL if metric.name.startswith("llm_gateway_")]
        self._metrics = {metric.name: metrics.create(metric, serve_metrics) for metric in ours if not metric.boundaries}
        self._histograms = {metric.name: Histogram(metric, serve_metrics) for metric in ours if metric.boundaries}
        self._rounds = 0
        """How often Ray was told."""
        self._counted: defaultdict[Series, float] = defaultdict(float)
        self._shown: dict[Series, float] = {}
        self._watched: dict[str, Callable[[], float]] = {}
        #: Names of metrics that could not be told.
        self._lost: set[str] = set()

    def count(self, metric: Metric, value: float = 1, /, **tags: str) -> None:
        """Add ``value`` to a counter."""
        self._counted[series(metric, **tags)] += value

    def add(self, counter: Series, value: float) -> None:
        """Add ``value`` to a counter whose series has a name already, as for what every request counts."""
        self._counted[counter] += value

    def observe(self, metric: Metric, value: float, /, **tags: str) -> None:
        """Put ``value`` into a histogram; ``tags`` in the metric's order."""
        self._histograms[metric.name].observe(value, tuple(tags.items()))

    def show(self, metric: Metric, value: float, /, **tags: str) -> None:
        """Set a gauge; it stays what it is until it is set again."""
        self._shown[series(metric, **tags)] = value

    def watch(self, metric: Metric, value: Callable[[], float]) -> None:
        """Have a gauge without tags show what ``value`` says at the time."""
        self._watched[metric.name] = value

    async def run(self) -> None:
        """Tell Ray, for ever, and once more when it is cancelled. Requests go on meanwhile."""
        due: Iterator[_Call] = iter(())
        try:
            while True:
                await asyncio.sleep(TOLD_EVERY_S)
                due = self._due()
                while some := list(islice(due, TOLD_AT_ONCE)):
                    self._tell(some)
                    await asyncio.sleep(0)
        finally:
            self._tell(due)
            self.tell()

    def tell(self) -> None:
        """Tell Ray what was counted and observed since the last time, and what gauges show.

        What cannot be told is lost, and the log says so once for each metric; the others are told all the same.
        """
        self._tell(self._due())

    def _tell(self, calls: Iterable[_Call]) -> None:
        for name, told in calls:
            try:
                told()
            except Exception:
                if name not in self._lost:
                    self._lost.add(name)
                    logger.exception("a metric was not told", extra={"metric": name})

    def _due(self) -> Iterator[_Call]:
        """What Ray is to be told now."""
        counted, self._counted = self._counted, defaultdict(float)
        for (name, tags), value in counted.items():
            if value:  # Ray refuses to count nothing
                yield name, partial(self._metrics[name].inc, value, tags=dict(tags))
        again = self._rounds % TOLD_AGAIN == 0
        self._rounds += 1
        for name, histogram in self._histograms.items():
            for told in histogram.due(all_of_them=again):
                yield name, told
        for (name, tags), value in list(self._shown.items()):
            yield name, partial(self._metrics[name].set, value, tags=dict(tags))
        for name, value_of in list(self._watched.items()):
            yield name, partial(self._show_watched, name, value_of)

    def _show_watched(self, name: str, value_of: Callable[[], float]) -> None:
        self._metrics[name].set(value_of(), tags={})

    def finished(self, exchange: Exchange) -> None:
        """Count and log an exchange that is over."""
        duration_s = time.perf_counter() - exchange.started_s
        named = ("model", exchange.model), ("version", exchange.version)
        histograms = self._histograms
        self._counted[metrics.GATEWAY_REQUESTS.name, (*named, ("status", str(exchange.status)))] += 1
        histograms[metrics.GATEWAY_DURATION.name].observe(duration_s, named)
        if exchange.first_byte_s is not None:
            histograms[metrics.GATEWAY_TTFB.name].observe(exchange.first_byte_s, named)
        if (between_s := exchange.inter_token_s) is not None:
            histograms[metrics.GATEWAY_ITL.name].observe(between_s, named)
        if not exchange.audited and (exchange.broken or exchange.status >= 400):
            logger.info("request failed", extra=exchange.told())
