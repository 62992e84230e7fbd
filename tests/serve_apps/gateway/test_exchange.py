import logging

import pytest

from serve_apps.gateway.exchange import Exchange
from tests.serve_apps.gateway.recorded_metrics import RecordedMetrics


def test_a_finished_exchange_is_counted_by_model_and_status() -> None:
    recorded = RecordedMetrics()
    exchange = Exchange("r1", "POST", "/v1/completions", model="chat")
    exchange.began(200)
    recorded.telemetry().finished(exchange)
    assert recorded.tags("llm_gateway_requests") == [{"model": "chat", "status": "200"}]
    assert recorded.tags("llm_gateway_time_to_first_byte_seconds") == [{"model": "chat"}]
    assert recorded.tags("llm_gateway_request_duration_seconds") == [{"model": "chat"}]


def test_an_exchange_without_a_first_byte_has_no_time_to_it() -> None:
    recorded = RecordedMetrics()
    exchange = Exchange("r1", "POST", "/v1/completions")
    exchange.client_gone()
    recorded.telemetry().finished(exchange)
    assert recorded.tags("llm_gateway_requests") == [{"model": "unknown", "status": "499"}]
    assert recorded.tags("llm_gateway_time_to_first_byte_seconds") == []


def test_a_client_that_leaves_does_not_change_the_status_it_was_sent() -> None:
    exchange = Exchange("r1", "POST", "/v1/completions")
    exchange.began(200)
    exchange.client_gone()
    assert (exchange.status, exchange.broken) == (200, True)


def test_requests_in_flight_are_a_gauge() -> None:
    recorded = RecordedMetrics()
    recorded.telemetry().in_flight(3)
    assert recorded.values("llm_gateway_in_flight_requests") == [3]


def test_the_log_line_says_who_asked_what(caplog: pytest.LogCaptureFixture) -> None:
    exchange = Exchange("r1", "POST", "/v1/completions", tenant="acme", model="chat")
    exchange.began(200)
    with caplog.at_level(logging.INFO, logger="serve_apps.gateway"):
        RecordedMetrics().telemetry().finished(exchange)
    assert {"tenant": "acme", "model": "chat", "status": 200}.items() <= vars(caplog.records[0]).items()
