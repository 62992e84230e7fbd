"""Every path of the API that the demo's models have, answered by vLLM itself."""

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from serve_apps.gateway.refusals import is_context_overflow
from tests.demo.conftest import Demo

PARIS: Any = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(demo: Demo) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=demo.url, api_key=demo.key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def claude(demo: Demo) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=demo.root, api_key=demo.key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def http(demo: Demo) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {demo.key}"}
    with httpx.Client(base_url=demo.root, headers=headers, timeout=120) as client:
        yield client


def metered(http: httpx.Client) -> int:
    """The tokens metered for the demo's tenant so far."""
    total = http.get("/v1/usage").json()["total"]
    tokens: int = total["prompt_tokens"] + total["completion_tokens"]
    return tokens


def test_a_stream_tells_no_usage_unasked_and_is_metered(client: openai.OpenAI, http: httpx.Client) -> None:
    before = metered(http)
    chunks = list(client.chat.completions.create(model="chat", temperature=0, messages=PARIS, stream=True))
    assert "Paris" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert not any(chunk.usage for chunk in chunks)
    assert metered(http) > before + len(PARIS[0]["content"].split())


def test_a_response_is_given_whole_and_as_a_stream(client: openai.OpenAI, http: httpx.Client) -> None:
    before = metered(http)
    whole = client.responses.create(model="chat", temperature=0, max_output_tokens=20, input=PARIS[0]["content"])
    assert whole.usage is not None
    assert whole.output_text
    assert metered(http) == before + whole.usage.total_tokens
    stream = client.responses.create(model="chat", temperature=0, max_output_tokens=20, input="Hello", stream=True)
    assert list(stream)[-1].type in ("response.completed", "response.incomplete")
    assert metered(http) > before + whole.usage.total_tokens


def test_a_message_is_given_whole_and_as_a_stream(claude: anthropic.Anthropic, http: httpx.Client) -> None:
    before = metered(http)
    whole = claude.messages.create(model="chat", max_tokens=20, messages=PARIS)
    assert metered(http) == before + whole.usage.input_tokens + whole.usage.output_tokens
    with claude.messages.stream(model="chat", max_tokens=20, messages=PARIS) as stream:
        assert "".join(stream.text_stream)
        usage = stream.get_final_message().usage
    assert usage.output_tokens > 1
    assert claude.messages.count_tokens(model="chat", messages=PARIS).input_tokens == usage.input_tokens


def test_a_prompt_too_long_is_said_to_be_in_either_dialect(claude: anthropic.Anthropic, http: httpx.Client) -> None:
    long: Any = [{"role": "user", "content": "word " * 20_000}]
    answer = http.post("/v1/chat/completions", json={"model": "chat", "messages": long})
    assert is_context_overflow(answer.status_code, answer.content), answer.text
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.create(model="chat", max_tokens=5, messages=long)


@pytest.mark.parametrize("model", ["chat", "embedder"])
def test_text_becomes_tokens_and_back(http: httpx.Client, model: str) -> None:
    tokens = http.post("/tokenize", json={"model": model, "prompt": "hello world"}).json()["tokens"]
    back = http.post("/detokenize", json={"model": model, "tokens": tokens}).json()["prompt"]
    assert "hello world" in back
