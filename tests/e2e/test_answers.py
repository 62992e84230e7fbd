"""What clients get through the Service that the Ingress names, with the unmodified SDK and real models."""

import json
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.e2e.documents import SOURCE, cited, upload
from tests.e2e.release import Release, sdk
from tests.e2e.waiting import until

PARIS = "What is the capital of France?"


@pytest.fixture(scope="module")
def http(release: Release) -> Iterator[httpx.Client]:
    with release.forwarded() as client:
        yield client


@pytest.fixture(scope="module")
def client(http: httpx.Client) -> Iterator[openai.OpenAI]:
    with sdk(http) as client:
        yield client


def test_a_question_is_answered_from_documents_with_citations(http: httpx.Client, client: openai.OpenAI) -> None:
    """Documents are posted; the pipeline, asked as a model, answers and cites the one that has the answer."""
    upload(http)
    assert SOURCE in cited(client)


def test_a_chat_is_streamed(client: openai.OpenAI) -> None:
    """SmolLM2 on CPU streams an answer in many pieces, and the usage at its end.

    What it says may differ with the processor.
    """
    chunks = list(
        client.chat.completions.create(
            model="chat",
            temperature=0,
            max_tokens=64,
            stream=True,
            stream_options={"include_usage": True},
            messages=[{"role": "user", "content": PARIS}],
        )
    )
    said = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert len(said) > 3, f"it came in one piece: {said}"
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens >= len(said)


def test_kubectl_shows_the_audit_log(release: Release, client: openai.OpenAI) -> None:
    """A request is a line in the log of its pod's container: who asked which model, and for how many tokens."""
    asked = client.embeddings.with_raw_response.create(model="embedder", input="a cat")
    named = f'"request_id":"{asked.headers["x-request-id"]}"'

    def lines() -> list[str]:
        pods = f"app.kubernetes.io/instance={release.name},ray.io/cluster"
        log = release.kubectl("logs", f"--selector={pods}", "--container=ray", "--tail=-1", "--max-log-requests=20")
        return [line for line in log.splitlines() if named in line]

    (line,) = until("the audit log tells of a request", lines, bool, 60)
    told = json.loads(line)
    assert {"logger": "serve_apps.gateway.audit", "tenant": "admin", "model": "embedder"}.items() <= told.items()
    assert told["prompt_tokens"] > 0


def test_an_agent_answers_and_tells_its_steps(http: httpx.Client) -> None:
    """The agent of the preset works on a question and comes to an end; every call it made is of a tool it has."""
    body = {"model": "helper", "messages": [{"role": "user", "content": "What is 17 plus 25?"}], "include_steps": True}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"].strip()
    assert answer.json()["end_reason"]
    assert {step["tool"] for step in answer.json()["steps"]} <= {"docs", "calculate"}


def test_texts_are_embedded(client: openai.OpenAI) -> None:
    """MiniLM on CPU embeds; what is close in meaning is close in space."""
    texts = ["a cat on a mat", "a kitten on a rug", "the interest rate of a bond"]
    cat, kitten, bond = (one.embedding for one in client.embeddings.create(model="embedder", input=texts).data)
    assert _dot(cat, kitten) > _dot(cat, bond) + 0.2


def test_without_a_key_nobody_gets_in(http: httpx.Client) -> None:
    """401 without a key, and with a wrong one."""
    for headers in ({}, {"authorization": "Bearer sk-admin-guess"}):
        answer = httpx.get(f"{http.base_url}/v1/models", headers=headers, timeout=60)
        assert answer.status_code == 401
        assert answer.json()["error"]["type"]


def test_an_unknown_model_is_told_the_known_ones(client: openai.OpenAI) -> None:
    """404, and the names of the models there are."""
    with pytest.raises(openai.NotFoundError, match="chat, docs, embedder, helper"):
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "hi"}])


def test_a_model_is_not_reached_past_the_gateway(http: httpx.Client) -> None:
    """401 from a model's own path, key or not: it answers the applications only."""
    answer = http.post("/internal/chat/v1/chat/completions", json={"model": "chat", "messages": []})
    assert answer.status_code == 401


def _dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))
