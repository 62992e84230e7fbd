"""A client that goes away ends the work that was done for it."""

import httpx
import pytest

from tests.serve.conftest import Service
from tests.serve.waiting import until


def aborted(service: Service) -> int:
    """Generations that ended early, by the fake engine's journal."""
    return service.journal.read_text().split().count("aborted")


@pytest.mark.parametrize("model", ["chat", "docs"])
@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
def test_the_generation_is_aborted(service: Service, model: str, stream: bool) -> None:
    body = {
        "model": model,
        "stream": stream,
        "max_tokens": 500,
        "messages": [{"role": "user", "content": "count"}],
    }
    before = aborted(service)
    started = service.journal.read_text().split().count("started")
    with httpx.Client(timeout=60, headers=service.headers) as client:
        request = client.build_request("POST", f"{service.root}/v1/chat/completions", json=body)
        if stream:
            answer = client.send(request, stream=True)
            assert answer.status_code == 200
            until(lambda: service.journal.read_text().split().count("started"), lambda seen: seen > started)
            answer.close()
        else:
            request.extensions["timeout"]["read"] = 4
            with pytest.raises(httpx.ReadTimeout):
                client.send(request)
    until(lambda: aborted(service), lambda seen: seen > before)
