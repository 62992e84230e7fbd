"""What is too much is refused at once, in OpenAI's shape, and told when to come back."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import openai

from tests.serve.conftest import Service

#: More than the model's two replicas have room for: twice 4 ongoing and 2 queued.
FLOOD = 20


def flood(service: Service) -> list[httpx.Response]:
    """Ask ``FLOOD`` things at the same time; the answers."""
    with ThreadPoolExecutor(FLOOD) as callers:
        return list(callers.map(lambda _: service.chat(max_tokens=20), range(FLOOD)))


def test_a_full_model_refuses_with_429_and_retry_after(service: Service) -> None:
    answers = flood(service)
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["type"] == "rate_limit_error"


def test_the_sdk_sees_a_rate_limit(service: Service) -> None:
    def ask(_: int) -> type[Exception] | None:
        try:
            client.chat.completions.create(model="chat", max_tokens=20, messages=[{"role": "user", "content": "count"}])
        except openai.APIError as error:
            return type(error)
        return None

    with service.client() as client, ThreadPoolExecutor(FLOOD) as callers:
        assert set(callers.map(ask, range(FLOOD))) == {None, openai.RateLimitError}
