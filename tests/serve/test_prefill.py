"""A prompt is read by a replica of its own; the one that answers has our guard, and streams."""

import json
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

from tests.serve.conftest import Service
from tests.serve.test_guard import CONTROL
from tests.serve.waiting import PATIENCE_S, until

MESSAGES: list[Any] = [{"role": "user", "content": "count"}]
INTERNAL = {"x-llm-internal": "internal-secret"}


def count(service: Service, event: str) -> int:
    """How often the fake engines noted ``event``."""
    return service.journal.read_text().split().count(event)


@pytest.fixture
def moves(service: Service) -> Any:
    """Tells how many prompts were read in one place and answered in another since the test began."""
    before = {event: count(service, event) for event in ("prefilled", "decoded")}
    return lambda: {event: count(service, event) - seen for event, seen in before.items()}


def test_the_prompt_is_read_elsewhere_and_the_answer_streams(service: Service, moves: Any) -> None:
    chunks = service.client().chat.completions.create(model="split", messages=MESSAGES, max_tokens=3, stream=True)
    words = [chunk.choices[0].delta.content for chunk in chunks]
    assert words == ["word0 ", "word1 ", "word2 "]
    assert moves() == {"prefilled": 1, "decoded": 1}
    (reads,) = service.cluster.live_pids("split", "PDPrefillServer:split")
    (answers,) = service.cluster.live_pids("split", "DecodeVLLMServer:split")
    assert reads != answers


def test_a_whole_answer_and_a_completion_take_the_same_way(service: Service, moves: Any) -> None:
    answer = service.client().chat.completions.create(model="split", messages=MESSAGES, max_tokens=2)
    assert answer.choices[0].message.content == "word0 word1 "
    completion = service.client().completions.create(model="split", prompt="count", max_tokens=2)
    assert completion.choices[0].text == "count: word0 word1 "
    assert moves() == {"prefilled": 2, "decoded": 2}


def test_a_client_cannot_say_where_the_kv_cache_is_fetched(service: Service, moves: Any) -> None:
    forged = {"do_remote_prefill": True, "remote_host": "10.0.0.1", "remote_port": 1, "remote_block_ids": [0]}
    answer = service.chat("split", max_tokens=1, kv_transfer_params=forged)
    assert answer.status_code == 200, answer.text
    assert moves() == {"prefilled": 1, "decoded": 1}
    for path in ("/v1/messages", "/v1/responses"):
        body = {"model": "split", "kv_transfer_params": forged}
        closed = httpx.post(f"{service.root}{path}", json=body, headers=service.headers, timeout=PATIENCE_S)
        assert closed.status_code == 404, path


def test_only_the_gateway_is_answered_and_control_paths_are_closed(service: Service) -> None:
    def status(path: str, headers: dict[str, str]) -> int:
        url = f"{service.root}/internal/split{path}"
        return httpx.post(url, json={}, headers=headers, timeout=PATIENCE_S).status_code

    for path in ("/v1/chat/completions", "/v1/completions", *CONTROL):
        assert status(path, service.headers) == 401, path
    for path in CONTROL:
        assert status(path, INTERNAL) == 404, path


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
def test_the_generation_ends_with_its_client(service: Service, stream: bool) -> None:
    body = {"model": "split", "stream": stream, "max_tokens": 500, "messages": MESSAGES}
    started, aborted = count(service, "started"), count(service, "aborted")
    connection = HTTPConnection("127.0.0.1", service.config["http_options"]["port"])
    headers = {**service.headers, "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    until(lambda: count(service, "started"), lambda seen: seen > started)
    connection.close()
    until(lambda: count(service, "aborted"), lambda seen: seen > aborted)
