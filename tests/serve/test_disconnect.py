"""A client that goes away ends the work that was done for it."""

import json
from http.client import HTTPConnection

import pytest

from tests.serve.conftest import Service
from tests.serve.waiting import until

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("model", ["chat", "docs"])
@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
def test_the_generation_is_aborted(service: Service, model: str, stream: bool) -> None:
    body = {"model": model, "stream": stream, "max_tokens": 500, "messages": [{"role": "user", "content": "count"}]}
    started, aborted = _count(service, "started"), _count(service, "aborted")
    # Headers and body in packets of their own, as most clients send them.
    connection = HTTPConnection("127.0.0.1", service.config["http_options"]["port"])
    connection.request("POST", "/v1/chat/completions", json.dumps(body), service.headers | JSON)
    until(lambda: _count(service, "started"), lambda seen: seen > started)
    connection.close()
    until(lambda: _count(service, "aborted"), lambda seen: seen > aborted)


def _count(service: Service, event: str) -> int:
    """How often the fake engine noted ``event``."""
    return service.journal.read_text().split().count(event)
