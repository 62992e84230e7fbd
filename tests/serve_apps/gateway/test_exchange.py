import asyncio
import logging
from typing import Any

import pytest

from serve_apps.common import metrics
from serve_apps.gateway.exchange import Exchange
from tests.serve_apps.gateway.recorded_metrics import RecordedMetrics


def test_a_finished_exchange_is_counted_by_model_version_and_status() -> None:
    recorded = RecordedMetrics()
    exchange = Exchange("r1", "POST", "/v1/completions", model="chat", version="chat-v2")
    exchange.began(200)
    recorded.telemetry().finished(exchange)
    assert recorded.tags("llm_gateway_requests") == [{"model": "chat", "version": "chat-v2", "status": "200"}]
    assert recorded.tags("llm_gateway_time_to_first_byte_seconds") == [{"model": "chat", "version": "chat-v2"}]
    assert recorded.tags("llm_gateway_request_duration_seconds") == [{"model": "chat", "version": "chat-v2"}]


def test_an_exchange_without_a_first_byte_has_no_time_to_it() -> None:
    recorded = RecordedMetrics()
    exchange = Exchange("r1", "POST", "/v1/completions")
    exchange.client_gone()
    recorded.telemetry().finished(exchange)
    assert recorded.tags("llm_gateway_requests") == [{"model": "unknown", "version": "", "status": "499"}]
    assert recorded.tags("llm_gateway_time_to_first_byte_seconds") == []


def test_a_client_that_leaves_does_not_change_the_status_it_was_sent() -> None:
    exchange = Exchange("r1", "POST", "/v1/completions")
    exchange.began(200)
    exchange.client_gone()
    assert (exchange.status, exchange.broken) == (200, True)


@pytest.mark.parametrize(("pieces", "last_s", "between_s"), [(5, 0.9, [0.1]), (1, 0.9, []), (5, None, [])])
def test_the_time_between_pieces_is_that_of_streams_with_some(
    pieces: int, last_s: float | None, between_s: list[float]
) -> None:
    recorded = RecordedMetrics()
    exchange = Exchange("r1", "POST", "/v1/completions", stream=True, pieces=pieces, last_byte_s=last_s)
    exchange.status, exchange.first_byte_s = 200, 0.5
    recorded.telemetry().finished(exchange)
    assert recorded.values("llm_gateway_inter_token_seconds") == pytest.approx(between_s)


def test_a_gauge_shows_what_it_is_told() -> None:
    recorded = RecordedMetrics()
    recorded.telemetry().show(metrics.GATEWAY_IN_FLIGHT, 3)
    assert recorded.values("llm_gateway_in_flight_requests") == [3]


def test_a_gauge_is_set_again_since_ray_drops_it_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_apps.gateway.exchange.SHOWN_AGAIN_S", 0)
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
    assert set(recorded.values("llm_gateway_waiting_requests")[1:]) == {1}
    assert recorded.tags("llm_gateway_waiting_requests")[-1] == {"model": "chat"}
    assert set(recorded.values("llm_gateway_store_down")) == {True}


@pytest.mark.parametrize(("value", "counted"), [(0, []), (2, [2])])
def test_nothing_is_not_counted(value: float, counted: list[float]) -> None:
    recorded = RecordedMetrics()
    recorded.telemetry().count(metrics.GATEWAY_COST, value, tenant="acme", model="chat")
    assert recorded.values("llm_gateway_cost") == counted


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
