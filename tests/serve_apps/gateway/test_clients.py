"""The clients people use, unmodified, against a real gateway in front of an upstream that answers as vLLM does."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import TextBlock
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel, SecretStr

from tests.serve_apps.gateway.conftest import GatewayServer
from tests.serve_apps.gateway.fake_vllm import TOO_LONG, WORDS, vllm
from tests.serve_apps.gateway.servers import PATIENCE_S, Answer, Behaviour, Upstream

TEXT = "".join(WORDS)
ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@dataclass
class Service:
    """A gateway with a model of every task, and what stands behind it."""

    upstream: Upstream
    gateway: GatewayServer
    openai: openai.OpenAI
    anthropic: anthropic.Anthropic

    def sent(self) -> dict[str, Any]:
        """The last body that the upstream was sent."""
        body: dict[str, Any] = json.loads(self.upstream.received[-1].body)
        return body

    def tokens(self) -> dict[str, float]:
        """The tokens that were metered so far, once the last request was: that comes after its answer."""
        deadline = time.monotonic() + PATIENCE_S
        while (usage := self.gateway.client.get("/v1/usage").json()["total"])["requests"] < len(self.upstream.received):
            assert time.monotonic() < deadline, usage
        return {kind: usage[f"{kind}_tokens"] for kind in ("prompt", "completion")}


@pytest.fixture
def service(
    upstream: Callable[[Behaviour], tuple[Upstream, str]], gateway: Callable[..., GatewayServer]
) -> Iterator[Service]:
    """Models ``chat`` (behind the route ``assistant`` too), ``embedder``, ``reranker`` and ``whisper``."""
    server, url = upstream(vllm)
    tasks = {"chat": "generate", "embedder": "embed", "reranker": "score", "whisper": "transcribe"}
    running = gateway(
        {name: {"url": url, "task": task} for name, task in tasks.items()},
        {"routes": {"assistant": {"versions": [{"model": "chat"}], "aliases": ["gpt-4o"]}}},
    )
    with (
        openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0) as openai_client,
        anthropic.Anthropic(base_url=running.url, api_key=running.key, max_retries=0) as anthropic_client,
    ):
        yield Service(server, running, openai_client, anthropic_client)


# openai


def test_openai_chats(service: Service) -> None:
    answer = service.openai.chat.completions.create(model="chat", messages=ASK)
    assert answer.choices[0].message.content == TEXT
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert service.sent() == {"model": "chat", "messages": ASK}
    assert service.tokens() == {"prompt": 9, "completion": 5}


@pytest.mark.parametrize("name", ["assistant", "gpt-4o"])
def test_openai_chats_with_a_route_by_any_of_its_names(service: Service, name: str) -> None:
    answer = service.openai.chat.completions.with_raw_response.create(model=name, messages=ASK)
    assert answer.headers["x-llm-version"] == "chat"
    assert service.sent() == {"model": "chat", "messages": ASK}


def test_openai_streams_and_sees_no_usage_it_did_not_ask_for(service: Service) -> None:
    chunks = list(service.openai.chat.completions.create(model="chat", messages=ASK, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert service.tokens() == {"prompt": 9, "completion": 5}


def test_openai_streams_with_the_usage_it_asked_for(service: Service) -> None:
    chunks = list(
        service.openai.chat.completions.create(
            model="chat", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 14
    assert service.sent()["stream_options"] == {"include_usage": True}
    assert service.tokens() == {"prompt": 9, "completion": 5}


def test_openai_lets_the_model_call_a_tool(service: Service) -> None:
    answer = service.openai.chat.completions.create(model="chat", messages=ASK, tools=[WEATHER], tool_choice="auto")
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert isinstance(calls[0], ChatCompletionMessageFunctionToolCall)
    assert (calls[0].function.name, json.loads(calls[0].function.arguments)) == ("weather", {"city": "Paris"})
    assert service.sent()["tools"] == [WEATHER]


class City(BaseModel):
    """What is asked for."""

    city: str


def test_openai_gets_structured_output(service: Service) -> None:
    answer = service.openai.chat.completions.parse(model="chat", messages=ASK, response_format=City)
    assert answer.choices[0].message.parsed == City(city="Paris")
    assert service.sent()["response_format"]["json_schema"]["schema"]["properties"]["city"]["type"] == "string"


def test_openai_gets_several_choices_and_logprobs(service: Service) -> None:
    answer = service.openai.chat.completions.create(model="chat", messages=ASK, n=3, logprobs=True, seed=7)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.choices[0].logprobs is not None
    assert service.sent() == {"model": "chat", "messages": ASK, "n": 3, "logprobs": True, "seed": 7}


@pytest.mark.parametrize(("prompt", "answers"), [("a", 1), (["a", "b"], 2), ([1, 2], 1), ([[1, 2], [3]], 2)])
def test_openai_completes_prompts_of_every_kind(service: Service, prompt: Any, answers: int) -> None:
    answer = service.openai.completions.create(model="chat", prompt=prompt)
    assert len(answer.choices) == answers
    assert service.sent() == {"model": "chat", "prompt": prompt}


def test_openai_gets_embeddings_in_base64_as_it_asks_for_them(service: Service) -> None:
    answer = service.openai.embeddings.create(model="embedder", input=["a", "b"])
    assert [item.embedding for item in answer.data] == [[0.25, -0.5, 1.0]] * 2
    assert service.sent()["encoding_format"] == "base64"
    assert service.tokens() == {"prompt": 4, "completion": 0}


def test_openai_gets_a_response(service: Service) -> None:
    answer = service.openai.responses.create(model="assistant", input="What is the capital of France?")
    assert answer.output_text == TEXT
    assert service.tokens() == {"prompt": 9, "completion": 5}


def test_openai_gets_a_response_as_a_stream(service: Service) -> None:
    events = list(service.openai.responses.create(model="chat", input="What?", stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert events[-1].type == "response.completed"
    assert service.tokens() == {"prompt": 9, "completion": 5}


def test_openai_is_told_that_responses_are_not_stored(service: Service) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        service.openai.responses.retrieve("resp_8f2e0d7b")
    assert caught.value.code == "response_not_found"
    with pytest.raises(openai.NotFoundError):
        service.openai.responses.cancel("resp_8f2e0d7b")


def test_openai_gets_a_transcription(service: Service) -> None:
    answer = service.openai.audio.transcriptions.create(model="whisper", file=("a.wav", b"RIFF" + bytes(range(256))))
    assert answer.text == "Paris is the capital."
    assert b"RIFF" + bytes(range(256)) in service.upstream.received[-1].body
    assert service.upstream.received[-1].path == "/v1/audio/transcriptions"


def test_openai_lists_models_routes_and_aliases(service: Service) -> None:
    names = [model.id for model in service.openai.models.list()]
    assert names == ["assistant", "chat", "embedder", "gpt-4o", "reranker", "whisper"]
    assert service.openai.models.retrieve("gpt-4o").owned_by == "llm-serving"


@pytest.mark.parametrize(
    ("model", "extra", "error", "code"),
    [
        ("gpt-5", {}, openai.NotFoundError, "model_not_found"),
        ("embedder", {}, openai.BadRequestError, "unsupported_path"),
        ("chat", {"max_tokens": "5"}, openai.BadRequestError, "invalid_type"),
        ("", {}, openai.BadRequestError, None),
    ],
)
def test_openai_raises_its_own_errors(
    service: Service, model: str, extra: Any, error: type[openai.APIStatusError], code: str | None
) -> None:
    with pytest.raises(error) as caught:
        service.openai.chat.completions.create(model=model, messages=ASK, extra_body=extra)
    assert caught.value.code == code


def test_openai_raises_what_the_model_says(service: Service) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is 64 tokens") as caught:
        service.openai.chat.completions.create(model="chat", messages=[{"role": "user", "content": TOO_LONG}])
    assert caught.value.param == "input_tokens"


def test_openai_raises_over_a_wrong_key(service: Service) -> None:
    with pytest.raises(openai.AuthenticationError):
        service.openai.with_options(api_key="sk-wrong").chat.completions.create(model="chat", messages=ASK)


# anthropic


def test_anthropic_gets_a_message(service: Service) -> None:
    answer = service.anthropic.messages.create(model="assistant", max_tokens=50, messages=ASK)
    assert answer.content == [TextBlock(type="text", text=TEXT)]
    assert answer.stop_reason == "end_turn"
    assert service.sent() == {"model": "chat", "max_tokens": 50, "messages": ASK}
    assert service.tokens() == {"prompt": 9, "completion": 5}


def test_anthropics_key_does_not_reach_the_model(service: Service) -> None:
    service.anthropic.messages.create(model="chat", max_tokens=50, messages=ASK)
    seen = service.upstream.received[-1].headers
    assert service.gateway.key not in str(seen)
    assert "anthropic-version" in seen


def test_anthropic_streams_a_message(service: Service) -> None:
    with service.anthropic.messages.stream(model="chat", max_tokens=50, messages=ASK) as stream:
        assert "".join(stream.text_stream) == TEXT
        usage = stream.get_final_message().usage
    assert (usage.input_tokens, usage.output_tokens) == (9, 5)
    assert service.tokens() == {"prompt": 9, "completion": 5}


def test_anthropic_counts_tokens(service: Service) -> None:
    assert service.anthropic.messages.count_tokens(model="chat", messages=ASK).input_tokens == 9


@pytest.mark.parametrize(
    ("model", "message", "error", "kind"),
    [
        ("claude", "a", anthropic.NotFoundError, "not_found_error"),
        ("embedder", "a", anthropic.BadRequestError, "invalid_request_error"),
        ("chat", TOO_LONG, anthropic.BadRequestError, "invalid_request_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_raises_its_own_errors(
    service: Service, model: str, message: str, error: type[anthropic.APIStatusError], kind: str, stream: bool
) -> None:
    with pytest.raises(error) as caught:
        service.anthropic.messages.create(
            model=model, max_tokens=5, messages=[{"role": "user", "content": message}], stream=stream
        )
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", kind)


def test_anthropic_raises_over_a_wrong_key(service: Service) -> None:
    with pytest.raises(anthropic.AuthenticationError) as caught:
        service.anthropic.with_options(api_key="sk-wrong").messages.create(model="chat", max_tokens=5, messages=ASK)
    body: Any = caught.value.body
    assert body["error"]["type"] == "authentication_error"


def test_anthropic_lists_models(service: Service) -> None:
    assert "assistant" in [model.id for model in service.anthropic.models.list()]


def test_a_message_that_breaks_off_is_anthropics_error(
    upstream: Callable[[Behaviour], tuple[Upstream, str]], gateway: Callable[..., GatewayServer]
) -> None:
    async def breaking(answer: Answer) -> None:
        await answer.begin(200, {"content-type": "text/event-stream"})
        await answer.chunk(
            b'event: message_start\ndata: {"type":"message_start","message":{"content":[]}}\n\nevent: cont'
        )
        raise ConnectionError

    _, url = upstream(breaking)
    running = gateway({"chat": {"url": url, "task": "generate"}})
    with anthropic.Anthropic(base_url=running.url, api_key=running.key, max_retries=0) as client:
        events = client.messages.create(model="chat", max_tokens=5, messages=ASK, stream=True)
        assert next(iter(events)).type == "message_start"
        with pytest.raises(anthropic.APIStatusError, match="broke off"):
            list(events)


# langchain


def langchain(service: Service, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="assistant",
        base_url=f"{service.gateway.url}/v1",
        api_key=SecretStr(service.gateway.key),
        max_retries=0,
        **options,
    )


def test_langchain_chats(service: Service) -> None:
    answer = langchain(service).invoke([HumanMessage("What?")])
    assert answer.content == TEXT
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == 14


def test_langchain_streams(service: Service) -> None:
    assert "".join(str(chunk.content) for chunk in langchain(service).stream("What?")) == TEXT


def test_langchain_calls_tools(service: Service) -> None:
    answer: Any = langchain(service).bind_tools([WEATHER]).invoke("What?")
    assert answer.tool_calls[0]["args"] == {"city": "Paris"}


def test_langchain_gets_structured_output(service: Service) -> None:
    assert langchain(service).with_structured_output(City, method="json_schema").invoke("What?") == City(city="Paris")


def test_langchain_embeds(service: Service) -> None:
    embeddings = OpenAIEmbeddings(
        model="embedder",
        openai_api_base=f"{service.gateway.url}/v1",
        openai_api_key=SecretStr(service.gateway.key),
        check_embedding_ctx_length=False,
        max_retries=0,
    )
    assert embeddings.embed_documents(["a", "b"]) == [[0.25, -0.5, 1.0]] * 2


# No client of its own: plain HTTP


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
def test_documents_are_reranked(service: Service, path: str) -> None:
    body = {"model": "reranker", "query": "q", "documents": ["a", "b"], "top_n": 2}
    answer = service.gateway.client.post(path, json=body).json()
    assert [result["index"] for result in answer["results"]] == [0, 1]
    assert service.tokens() == {"prompt": 7, "completion": 0}


@pytest.mark.parametrize("path", ["/v1/score", "/score"])
def test_pairs_are_scored(service: Service, path: str) -> None:
    answer = service.gateway.client.post(path, json={"model": "reranker", "text_1": "a", "text_2": "b"}).json()
    assert answer["data"][0]["score"] == 0.5
    assert service.tokens() == {"prompt": 6, "completion": 0}


@pytest.mark.parametrize("model", ["chat", "embedder", "reranker"])
def test_text_becomes_tokens_and_back(service: Service, model: str) -> None:
    post = service.gateway.client.post
    assert post("/tokenize", json={"model": model, "prompt": "Paris"}).json()["tokens"] == [1, 2, 3]
    assert post("/detokenize", json={"model": model, "tokens": [1, 2, 3]}).json() == {"prompt": "Paris"}


def test_without_a_model_text_becomes_no_tokens(service: Service) -> None:
    answer = service.gateway.client.post("/tokenize", json={"prompt": "Paris"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == (
        'Name the model in the field "model", as a string. Models here: assistant, chat, embedder, reranker, whisper.'
    )


def test_speech_is_translated(service: Service) -> None:
    files = {"file": ("a.wav", b"RIFF")}
    answer = service.gateway.client.post("/v1/audio/translations", files=files, data={"model": "whisper"})
    assert answer.json()["text"] == "Paris is the capital."


def test_a_form_without_a_model_is_told_those_there_are(service: Service) -> None:
    answer = service.gateway.client.post("/v1/audio/translations", files={"file": ("a.wav", b"RIFF")})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "model"


# What clients should not send


WRONG = [
    *(b"", b"null", b"[]", b"{}", b"{", b"[" * 10_000, b'{"model":' * 10_000, b"\x00", b"\xff\xfe", b'{"model": NaN}'),
    *(b'{"model": 1e999}', b'{"model": {"a": 1}}', b'{"model": "a\\u0000b"}', b'{"model": "chat", "model": 7}'),
    *(b'{"model": "chat", "stream": "yes"}', b'{"model": "chat", "max_tokens": 1e30}', b'{"model": "\\ud800"}'),
]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings", "/v1/audio/transcriptions"])
def test_a_wrong_body_is_the_clients_fault_in_its_own_dialect(service: Service, path: str) -> None:
    for body in WRONG:
        answer = service.gateway.client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 404), body
        error = answer.json()["error"]
        assert error["message"]
        assert set(error) == ({"type", "message"} if path == "/v1/messages" else {"message", "type", "param", "code"})
    assert service.upstream.received == []


@pytest.mark.parametrize("depth", [200, 500, 900])
def test_a_deep_body_that_can_be_read_goes_on_as_it_came(service: Service, depth: int) -> None:
    body = b'{"model":"chat","messages":' + b"[" * depth + b"]" * depth + b',"n":1,"big":' + b"9" * 40 + b"}"
    answer = service.gateway.client.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200
    assert service.upstream.received[-1].body == body
