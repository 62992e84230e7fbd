"""The main job with real models: what ``make demo`` prints, and what real clients get from it."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import anthropic
import httpx
import openai
import pytest
from jsonschema import Draft202012Validator
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import SecretStr

from serve_apps.agent.progress import Ending
from serve_apps.agent.turn import Turn
from serve_apps.gateway.refusals import is_context_overflow
from tests.demo.agent_turns import CALLING, CASES, FUNCTIONS, Case
from tests.demo.conftest import Demo
from tools.demo.rendered import REPOSITORY

PARIS = "What is the capital of France?"
ASKED: Any = [{"role": "user", "content": PARIS}]
#: Tokens of the answer nobody waits for: most of the model's window, a minute and more on a CPU.
WHOLE_ANSWER = 1900
#: Longer than anything here takes on a busy machine, in seconds: an agent asks its model four times, for 256 tokens.
PATIENCE_S = 600
#: After which it is being written, and far from whole, in seconds.
BEGUN_S = 5
#: Longer than the cluster's interval between two pushes of its metrics (tools/demo/cluster.py), in seconds.
METRICS_PUSH_S = 3


@pytest.fixture(scope="module")
def client(demo: Demo) -> Iterator[openai.OpenAI]:
    """The unmodified SDK, pointed at the demo."""
    with openai.OpenAI(base_url=demo.url, api_key=demo.key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def http(demo: Demo) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {demo.key}"}
    with httpx.Client(base_url=demo.root, headers=headers, timeout=PATIENCE_S) as client:
        yield client


def test_the_answer_is_printed_with_a_source_from_the_docs(demo: Demo) -> None:
    answer = demo.transcript.partition("\nA: ")[2].partition("\nSources:")
    assert answer[0].strip()
    cited = re.findall(r"^  \[\d+\] (\S+) \(chunk \d+[^)]*\)$", answer[2], re.MULTILINE)
    assert any(name.startswith("docs/") and (REPOSITORY / name).is_file() for name in cited), cited


# What the model says may differ with the processor: the tests look at that it speaks, not at what it knows.


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="chat", temperature=0, max_tokens=32, messages=ASKED)
    assert answer.choices[0].message.content
    assert answer.model == "chat"


def test_openai_streams_with_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="chat",
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=32,
        messages=ASKED,
    )
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text.strip()
    assert len(chunks) > 3, "it came in one piece"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_openai_embeds(client: openai.OpenAI) -> None:
    texts = ["a cat on a mat", "a kitten on a rug", "the interest rate of a bond"]
    cat, kitten, bond = (one.embedding for one in client.embeddings.create(model="embedder", input=texts).data)
    assert _dot(cat, kitten) > _dot(cat, bond) + 0.2


def test_langchain_works_unmodified(demo: Demo) -> None:
    chat = ChatOpenAI(
        base_url=demo.url, api_key=SecretStr(demo.key), model="chat", temperature=0, max_completion_tokens=32
    )
    assert chat.invoke(PARIS).content
    assert "".join(str(chunk.content) for chunk in chat.stream(PARIS)).strip()
    embeddings = OpenAIEmbeddings(
        openai_api_base=demo.url,
        openai_api_key=SecretStr(demo.key),
        model="embedder",
        check_embedding_ctx_length=False,  # it would send OpenAI's token ids instead of text
    )
    assert len(embeddings.embed_query("a cat")) == 384
    for sdk in (chat.root_client, embeddings.client._client):  # langchain never closes them
        sdk.close()


def test_a_pipeline_is_a_model_and_cites(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="docs", messages=[{"role": "user", "content": "Which component is the only way in?"}]
    )
    notes = answer.choices[0].message.annotations
    assert notes, answer
    assert answer.model == "docs"


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"chat", "embedder", "docs", "helper"}
    assert client.models.retrieve("chat").id == "chat"


def test_an_unknown_model_is_told_the_known_ones(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="chat, docs, embedder, helper"):
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "hi"}])


def test_a_wrong_key_is_refused(demo: Demo) -> None:
    with (
        openai.OpenAI(base_url=demo.url, api_key=f"{demo.key}0", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/metrics", "/invocations", "/v1/load_lora_adapter"])
def test_a_model_is_not_reached_past_the_gateway(demo: Demo, path: str) -> None:
    answer = httpx.post(f"{demo.root}/internal/chat{path}", json={"model": "chat"}, headers={"x-llm-internal": "guess"})
    assert answer.status_code == 401


def test_a_prompt_that_is_too_long_is_the_callers_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="context length"):
        client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "word " * 5000}])


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
def test_a_client_that_goes_away_ends_the_generation(demo: Demo, stream: bool) -> None:
    body = {
        "model": "chat",
        "stream": stream,
        "max_tokens": WHOLE_ANSWER,
        "ignore_eos": True,
        "messages": [{"role": "user", "content": "Count to a million."}],
    }
    before = _generated(demo)
    with httpx.Client(timeout=60, headers={"authorization": f"Bearer {demo.key}"}) as client:
        request = client.build_request("POST", f"{demo.url}/chat/completions", json=body)
        if stream:
            answer = client.send(request, stream=True)
            next(answer.iter_lines())
            answer.close()
        else:
            request.extensions["timeout"]["read"] = BEGUN_S
            with pytest.raises(httpx.ReadTimeout):
                client.send(request)
    generated = _when_settled(lambda: _generated(demo) - before)
    assert 0 < generated < WHOLE_ANSWER - 100, "vLLM went on generating for nobody"


def _generated(demo: Demo) -> float:
    """Tokens that vLLM has generated for the chat model so far."""
    scrape = httpx.get(demo.metrics_url, timeout=30).text
    pattern = r'^ray_vllm_generation_tokens_total\{.*model_name="chat".*\} (\S+)$'
    return sum(float(value) for value in re.findall(pattern, scrape, re.MULTILINE))


def _when_settled(count: Callable[[], float]) -> float:
    """What ``count`` stops at: counted something, and the same again after two more pushes of Ray's metrics."""
    deadline = time.monotonic() + 180
    seen = [count()]
    while seen[-1] == 0 or seen[-3:] != [seen[-1]] * 3:
        assert time.monotonic() < deadline, f"still counting: {seen}"
        time.sleep(METRICS_PUSH_S)
        seen.append(count())
    return seen[-1]


def _dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


# An agent, whose model is far too small to be right, and held to calls that are valid all the same


def test_every_call_of_the_scripted_tasks_is_valid(client: openai.OpenAI) -> None:
    """Whatever the model wants to have calculated or looked up, at every point of every task."""

    def asked(case: Case) -> Any:
        return client.post("/chat/completions", body=case.request(), cast_to=dict[str, Any])

    with ThreadPoolExecutor(8) as callers:  # as many as the engine takes at a time
        answers = list(callers.map(asked, CASES))
    for case, answer in zip(CASES, answers, strict=True):
        [choice] = answer["choices"]
        decided = CALLING.decision(Turn(choice["message"]["content"]))
        assert (choice["finish_reason"], decided.correction) == ("stop", None), (case, answer)
        [call] = decided.calls
        Draft202012Validator(FUNCTIONS[call.name].parameters).validate(call.arguments)


def test_the_agent_of_the_preset_comes_to_an_end(http: httpx.Client) -> None:
    body = {"model": "helper", "messages": [{"role": "user", "content": "What is 17 plus 25?"}], "include_steps": True}
    answer = http.post("/v1/chat/completions", json=body).raise_for_status().json()
    assert answer["choices"][0]["message"]["content"].strip()
    assert answer["end_reason"] in get_args(Ending)
    for step in answer["steps"]:
        Draft202012Validator(FUNCTIONS[step["tool"]].parameters).validate(step["arguments"])


# Every path of the API that the demo's models have, answered by vLLM itself


@pytest.fixture(scope="module")
def claude(demo: Demo) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=demo.root, api_key=demo.key, max_retries=0) as client:
        yield client


def metered(http: httpx.Client) -> int:
    """The tokens metered for the demo's tenant so far."""
    total = http.get("/v1/usage").json()["total"]
    tokens: int = total["prompt_tokens"] + total["completion_tokens"]
    return tokens


def becomes_more(http: httpx.Client, tokens: int) -> bool:
    """Whether more than ``tokens`` are metered soon: a client hears of its stream's end before the gateway does."""
    deadline = time.monotonic() + PATIENCE_S
    while metered(http) <= tokens:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_stream_tells_no_usage_unasked_and_is_metered(client: openai.OpenAI, http: httpx.Client) -> None:
    before = metered(http)
    chunks = list(
        client.chat.completions.create(model="chat", temperature=0, max_tokens=32, messages=ASKED, stream=True)
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip()
    assert not any(chunk.usage for chunk in chunks)
    assert becomes_more(http, before + len(PARIS.split()))


def test_a_response_is_given_whole_and_as_a_stream(client: openai.OpenAI, http: httpx.Client) -> None:
    before = metered(http)
    whole = client.responses.create(model="chat", temperature=0, max_output_tokens=20, input=PARIS)
    assert whole.usage is not None
    assert whole.output_text
    assert metered(http) == before + whole.usage.total_tokens
    stream = client.responses.create(model="chat", temperature=0, max_output_tokens=20, input="Hello", stream=True)
    assert list(stream)[-1].type in ("response.completed", "response.incomplete")
    assert becomes_more(http, before + whole.usage.total_tokens)


def test_a_message_is_given_whole_and_as_a_stream(claude: anthropic.Anthropic, http: httpx.Client) -> None:
    before = metered(http)
    whole = claude.messages.create(model="chat", max_tokens=20, messages=ASKED)
    assert metered(http) == before + whole.usage.input_tokens + whole.usage.output_tokens
    with claude.messages.stream(model="chat", max_tokens=20, messages=ASKED) as stream:
        assert "".join(stream.text_stream)
        usage = stream.get_final_message().usage
    assert usage.output_tokens > 1
    assert claude.messages.count_tokens(model="chat", messages=ASKED).input_tokens == usage.input_tokens


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
