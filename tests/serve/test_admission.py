"""What is too much is refused at once, in OpenAI's shape, and told when to come back."""

import threading

import httpx
import openai
import pytest

from tests.serve.conftest import Service


def flood(service: Service, requests: int) -> list[httpx.Response]:
    """``requests`` at the same time; their answers."""
    answers: list[httpx.Response] = []
    callers = [threading.Thread(target=lambda: answers.append(service.chat(max_tokens=20))) for _ in range(requests)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return answers


def test_a_full_model_refuses_with_429_and_retry_after(service: Service) -> None:
    answers = flood(service, 15)
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused, [answer.status_code for answer in answers]
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in refused:
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["type"] == "rate_limit_error"


def test_the_sdk_sees_a_rate_limit(service: Service) -> None:
    with pytest.raises(openai.RateLimitError):
        raise_first_refusal(service)


def raise_first_refusal(service: Service) -> None:
    """Ask with the SDK while the model is full."""
    background = threading.Thread(target=flood, args=(service, 14))
    background.start()
    try:
        for _ in range(200):
            service.client().chat.completions.create(
                model="chat", max_tokens=1, messages=[{"role": "user", "content": "count"}]
            )
    finally:
        background.join()
