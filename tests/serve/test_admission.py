"""What is too much is refused at once, in OpenAI's shape, and told when to come back."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai

from tests.serve.conftest import Service
from tests.serve.waiting import PATIENCE_S

#: More than the gateway takes on at a time (values.yaml).
FLOOD = 20
#: Its answers are too long for anybody to be through before the last has asked: who is let in stays until somebody was
#: refused.
MESSAGES: Any = [{"role": "user", "content": "count"}]
TOKENS = 1000


def flood(service: Service) -> list[httpx.Response]:
    """Ask ``FLOOD`` things at the same time; the answers, of which only refusals have been read."""
    body = {"model": "chat", "messages": MESSAGES, "max_tokens": TOKENS, "stream": True}
    url = f"{service.root}/v1/chat/completions"
    refused = threading.Event()

    def ask(_: int) -> httpx.Response:
        with httpx.stream("POST", url, json=body, headers=service.headers, timeout=PATIENCE_S) as answer:
            if answer.status_code == 200:
                refused.wait(PATIENCE_S)
            else:
                answer.read()
                refused.set()
        return answer

    with ThreadPoolExecutor(FLOOD) as callers:
        return list(callers.map(ask, range(FLOOD)))


def test_a_full_model_refuses_with_429_and_retry_after(service: Service) -> None:
    answers = flood(service)
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["type"] == "rate_limit_error"


def test_the_sdk_sees_a_rate_limit(service: Service) -> None:
    refused = threading.Event()

    def ask(_: int) -> type[Exception] | None:
        try:
            with client.chat.completions.create(model="chat", max_tokens=TOKENS, messages=MESSAGES, stream=True):
                refused.wait(PATIENCE_S)
        except openai.APIError as error:
            refused.set()
            return type(error)
        return None

    with service.client() as client, ThreadPoolExecutor(FLOOD) as callers:
        assert set(callers.map(ask, range(FLOOD))) == {None, openai.RateLimitError}
