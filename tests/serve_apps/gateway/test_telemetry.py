import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from serve_apps.common import metrics
from serve_apps.gateway.exchange import Exchange
from serve_apps.gateway.telemetry import Telemetry
from tests.serve_apps.gateway.recorded_metrics import RecordedMetrics


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
    assert recorded.tags("llm_gateway_time_to_first_byte_seconds") == [{"model": "chat", "version": "chat-v2"}]
    assert recorded.tags("llm_gateway_request_duration_seconds") == [{"model": "chat", "version": "chat-v2"}]


def test_an_exchange_without_a_first_byte_has_no_time_to_it() -> None:
    recorded = RecordedMetrics()
    exchange = Exchange("r1", "POST", "/v1/completions")
    exchange.client_gone()
    told(recorded, lambda telemetry: telemetry.finished(exchange))
    assert recorded.tags("llm_gateway_requests") == [{"model": "unknown", "version": "", "status": "499"}]
    assert recorded.tags("llm_gateway_time_to_first_byte_seconds") == []


@pytest.mark.parametrize(("pieces", "last_s", "between_s"), [(5, 0.9, [0.1]), (1, 0.9, []), (5, None, [])])
def test_the_time_between_pieces_is_that_of_streams_with_some(
    pieces: int, last_s: float | None, between_s: list[float]
) -> None:
    recorded = RecordedMetrics()
    exchange = Exchange("r1", "POST", "/v1/completions", stream=True, pieces=pieces, last_byte_s=last_s)
    exchange.status, exchange.first_byte_s = 200, 0.5
    told(recorded, lambda telemetry: telemetry.finished(exchange))
    assert recorded.values("llm_gateway_inter_token_seconds") == pytest.approx(between_s)


def test_a_gauge_shows_what_it_is_told() -> None:
    recorded = RecordedMetrics()
    told(recorded, lambda telemetry: telemetry.show(metrics.GATEWAY_IN_FLIGHT, 3))
    assert recorded.values("llm_gateway_in_flight_requests") == [3]


def test_a_gauge_is_set_again_since_ray_drops_it_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_apps.gateway.telemetry.TOLD_EVERY_S", 0)
    recorded = RecordedMetrics()
    telemetry = recorded.telemetry()
    telemetry.show(metrics.GATEWAY_WAITING, 3, model="chat")
    telemetry.show(metrics.GATEWAY_WAITING, 1, model="chat")
    telemetry.show(metrics.GATEWAY_STORE_DOWN, True)

    async def some_time() -> None:
        running = asyncio.create_task(telemetry.run())
        while len(recorded.values("llm_gateway_store_down")) < 3:
            await asyncio.sleep(0)
        running.cancel()

    asyncio.run(some_time())
    assert set(recorded.values("llm_gateway_waiting_requests")) == {1}
    assert recorded.tags("llm_gateway_waiting_requests")[-1] == {"model": "chat"}
    assert set(recorded.values("llm_gateway_store_down")) == {True}


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
    assert recorded.tags("llm_gateway_wait_seconds") == [{"model": "chat"}] * 2 + [{"model": "big"}]


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
    assert recorded.values("llm_gateway_wait_seconds") == [0.1]


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
