import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from serve_apps.common import metrics
from serve_apps.gateway.exchange import Exchange
from serve_apps.gateway.telemetry import TOLD_AGAIN, TOLD_AT_ONCE, Telemetry
from tests.serve_apps.gateway.recorded_metrics import RecordedMetrics
from tests.serve_apps.gateway.servers import PATIENCE_S


def told(recorded: RecordedMetrics, of: Callable[[Telemetry], None]) -> None:
    """Have Ray told ``of`` something."""
    telemetry = recorded.telemetry()
    of(telemetry)
    telemetry.tell()


def test_a_finished_exchange_is_counted_by_model_version_and_status() -> None:
    recorded = RecordedMetrics()
    exchange = Exchange("r1", "POST", "/v1/completions", model="chat", version="chat-v2")
    exchange.began(200)
    told(recorded, lambda telemetry: telemetry.finished(exchange))
    assert recorded.tags("llm_gateway_requests") == [{"model": "chat", "version": "chat-v2", "status": "200"}]
    assert recorded.tags("llm_gateway_time_to_first_byte_seconds_count") == [{"model": "chat", "version": "chat-v2"}]
    assert recorded.tags("llm_gateway_request_duration_seconds_count") == [{"model": "chat", "version": "chat-v2"}]


def test_an_exchange_without_a_first_byte_has_no_time_to_it() -> None:
    recorded = RecordedMetrics()
    exchange = Exchange("r1", "POST", "/v1/completions")
    exchange.client_gone()
    told(recorded, lambda telemetry: telemetry.finished(exchange))
    assert recorded.tags("llm_gateway_requests") == [{"model": "unknown", "version": "", "status": "499"}]
    assert recorded.tags("llm_gateway_time_to_first_byte_seconds_count") == []


@pytest.mark.parametrize(("pieces", "last_s", "between_s"), [(5, 0.9, [0.1]), (1, 0.9, []), (5, None, [])])
def test_the_time_between_pieces_is_that_of_streams_with_some(
    pieces: int, last_s: float | None, between_s: list[float]
) -> None:
    recorded = RecordedMetrics()
    exchange = Exchange("r1", "POST", "/v1/completions", stream=True, pieces=pieces, last_byte_s=last_s)
    exchange.status, exchange.first_byte_s = 200, 0.5
    told(recorded, lambda telemetry: telemetry.finished(exchange))
    assert recorded.values("llm_gateway_inter_token_seconds_sum") == pytest.approx(between_s)


def test_a_gauge_shows_what_it_is_told() -> None:
    recorded = RecordedMetrics()
    told(recorded, lambda telemetry: telemetry.show(metrics.GATEWAY_IN_FLIGHT, 3))
    assert recorded.values("llm_gateway_in_flight_requests") == [3]


@pytest.mark.parametrize(("value", "counted"), [(0, []), (2, [2])])
def test_nothing_is_not_counted(value: float, counted: list[float]) -> None:
    recorded = RecordedMetrics()
    told(recorded, lambda telemetry: telemetry.count(metrics.GATEWAY_COST, value, tenant="acme", model="chat"))
    assert recorded.values("llm_gateway_cost") == counted


def test_what_was_counted_is_added_up_and_told_once() -> None:
    recorded = RecordedMetrics()
    telemetry = recorded.telemetry()
    for model in ("chat", "big", "chat"):
        telemetry.count(metrics.GATEWAY_FALLBACKS, model=model, version=model, reason="429")
        telemetry.observe(metrics.GATEWAY_WAIT, 0.1, model=model)
    telemetry.tell()
    telemetry.tell()
    assert recorded.values("llm_gateway_fallbacks") == [2, 1]
    assert recorded.values("llm_gateway_wait_seconds_count") == [2, 1]
    assert recorded.tags("llm_gateway_wait_seconds_count") == [{"model": "chat"}, {"model": "big"}]


def test_what_was_counted_last_is_told_at_the_end() -> None:
    recorded = RecordedMetrics()
    telemetry = recorded.telemetry()

    async def some_time() -> None:
        running = asyncio.create_task(telemetry.run())
        await asyncio.sleep(0)
        telemetry.observe(metrics.GATEWAY_WAIT, 0.1, model="chat")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(some_time())
    assert recorded.values("llm_gateway_wait_seconds_sum") == [0.1]


def run_a_while(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, rounds: Callable[[], int]) -> None:
    """Have Ray told what ``telemetry`` has until three ``rounds`` are counted."""
    monkeypatch.setattr("serve_apps.gateway.telemetry.TOLD_EVERY_S", 0)

    async def some_time() -> None:
        running = asyncio.create_task(telemetry.run())
        async with asyncio.timeout(PATIENCE_S):
            while rounds() < 3 and not running.done():
                await asyncio.sleep(0)
        assert running.cancel()

    asyncio.run(some_time())


def test_requests_go_on_while_ray_is_told_and_a_round_that_is_cancelled_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = RecordedMetrics()
    telemetry = recorded.telemetry()
    values = list(range(1, 3 * TOLD_AT_ONCE))
    for value in values:
        telemetry.count(metrics.GATEWAY_FALLBACKS, value, model="chat", version=str(value), reason="429")
    told: list[int] = []

    def rounds() -> int:
        told.append(len(recorded.values("llm_gateway_fallbacks")))
        return 3 if told[-1] else 0

    run_a_while(telemetry, monkeypatch, rounds)
    assert told[-1] == TOLD_AT_ONCE
    assert recorded.values("llm_gateway_fallbacks") == values


def test_a_histogram_is_shown_again_since_ray_drops_its_gauges_otherwise() -> None:
    recorded = RecordedMetrics()
    telemetry = recorded.telemetry()
    telemetry.observe(metrics.GATEWAY_WAIT, 0.1, model="chat")
    for _ in range(2 * TOLD_AGAIN):
        telemetry.tell()
    assert recorded.values("llm_gateway_wait_seconds_count") == [1, 1]


def test_a_gauge_is_set_again_since_ray_drops_it_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = RecordedMetrics()
    telemetry = recorded.telemetry()
    telemetry.show(metrics.GATEWAY_WAITING, 3, model="chat")
    telemetry.show(metrics.GATEWAY_WAITING, 1, model="chat")
    telemetry.show(metrics.GATEWAY_STORE_DOWN, True)
    run_a_while(telemetry, monkeypatch, lambda: len(recorded.values("llm_gateway_store_down")))
    assert set(recorded.values("llm_gateway_waiting_requests")) == {1}
    assert recorded.tags("llm_gateway_waiting_requests")[-1] == {"model": "chat"}
    assert set(recorded.values("llm_gateway_store_down")) == {True}


@pytest.mark.parametrize(
    "refused", [[], ["llm_gateway_fallbacks"], ["llm_gateway_fallbacks", "llm_gateway_wait_seconds_sum"]]
)
def test_a_metric_that_raises_keeps_no_other_from_being_told_and_the_log_says_it_once(
    refused: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorded = RecordedMetrics(*refused)
    telemetry = recorded.telemetry()
    telemetry.show(metrics.GATEWAY_STORE_DOWN, False)

    def rounds() -> int:
        """How often Ray was told; each has something to count, a value that is refused and one that is not."""
        telemetry.count(metrics.GATEWAY_FALLBACKS, model="chat", version="chat", reason="429")
        telemetry.observe(metrics.GATEWAY_WAIT, 0.1, model="chat")
        return len(recorded.values("llm_gateway_store_down"))

    run_a_while(telemetry, monkeypatch, rounds)
    assert len(recorded.values("llm_gateway_store_down")) >= 3
    lost = [vars(record)["metric"] for record in caplog.records if record.exc_info]
    assert lost == [name.removesuffix("_sum") for name in refused]
    assert bool(recorded.values("llm_gateway_wait_seconds_sum")) == (len(refused) < 2)
    assert recorded.values("llm_gateway_wait_seconds_count")


def test_a_watched_value_that_raises_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorded = RecordedMetrics()
    telemetry = recorded.telemetry()
    telemetry.watch(metrics.GATEWAY_IN_FLIGHT, lambda: 1 / 0)
    telemetry.watch(metrics.GATEWAY_STORE_DOWN, lambda: 0)
    run_a_while(telemetry, monkeypatch, lambda: len(recorded.values("llm_gateway_store_down")))
    assert recorded.values("llm_gateway_in_flight_requests") == []
    assert [record.getMessage() for record in caplog.records if record.exc_info] == ["a metric was not told"]


def logged(caplog: pytest.LogCaptureFixture, status: int, **noted: Any) -> list[dict[str, Any]]:
    """The log lines of a request of acme's that ended with ``status``."""
    exchange = Exchange("r1", "POST", "/v1/completions", tenant="acme", model="chat", **noted)
    exchange.began(status)
    with caplog.at_level(logging.INFO, logger="serve_apps.gateway"):
        RecordedMetrics().telemetry().finished(exchange)
    return [vars(record) for record in caplog.records]


@pytest.mark.parametrize(("status", "broken"), [(500, False), (429, False), (200, True)])
def test_the_log_says_who_asked_what_without_success(
    caplog: pytest.LogCaptureFixture, status: int, broken: bool
) -> None:
    (line,) = logged(caplog, status, broken=broken)
    assert {"tenant": "acme", "model": "chat", "status": status}.items() <= line.items()


def test_success_and_what_is_audited_leave_no_such_line(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(caplog, 200) == []
    assert logged(caplog, 500, audited=True) == []
