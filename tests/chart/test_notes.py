"""NOTES.txt and _warnings.tpl: how to reach it, and what is unsafe."""

from typing import Any

import pytest

from tests.chart.render import CHAT, DOCS, EMBEDDER, notes

MODELS: dict[str, Any] = {"chat": CHAT, "embedder": EMBEDDER}
#: Values that give no warning.
QUIET: dict[str, Any] = {"models": MODELS, "security": {"apiKeys": {"existingSecret": "our-keys"}}}


def warnings(values: dict[str, Any]) -> list[str]:
    return [line for line in notes(values).splitlines() if line.startswith("[WARNING]")]


def test_the_notes_say_what_is_served_how_to_wait_and_how_to_call() -> None:
    text = notes({**QUIET, "rag": {"docs": DOCS}})
    assert "chat (generate) from hf://org/chat@main, in worker group l4" in text
    assert "docs (RAG over chat and embedder)" in text
    assert "wait rayservice/llm-serving --for=condition=Ready" in text
    assert "{.status.activeServiceStatus.applicationStatuses}" in text
    assert "helm -n default test llm-serving --timeout 1200s" in text
    assert "port-forward svc/llm-serving-serve-svc 8000" in text
    assert 'curl -H "Authorization: Bearer $KEY" $URL/v1/models' in text


def test_the_notes_say_how_to_read_the_initial_key() -> None:
    assert "get secret llm-serving-initial-key -o jsonpath='{.data.key}' | base64 -d" in notes()
    assert "llm-serving-initial-key" not in notes(QUIET)


@pytest.mark.parametrize(
    ("more", "url"),
    [
        ({}, "http://llm.example.com"),
        ({"tls": [{"secretName": "tls", "hosts": ["llm.example.com"]}]}, "https://llm.example.com"),
        (
            {"annotations": {"alb.ingress.kubernetes.io/listen-ports": '[{"HTTPS": 443}]'}},
            "https://llm.example.com",
        ),
    ],
)
def test_with_an_ingress_the_notes_give_its_url(more: dict[str, Any], url: str) -> None:
    text = notes({**QUIET, "ingress": {"enabled": True, "host": "llm.example.com", **more}})
    assert f"  URL={url}\n" in text
    assert "port-forward" not in text


WARNINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no authentication": (
        {"security": {"auth": "none"}},
        "[WARNING] security.auth is none: everyone who reaches the gateway may use it. For laptops only; set apiKeys.",
    ),
    "a key the chart made": (
        {"security": {}},
        "[WARNING] security.apiKeys.existingSecret is empty: the chart made the key `admin`. Note it, then delete the "
        "Secret llm-serving-initial-key; the gateway keeps only its hash.",
    ),
    "no models": (
        {"models": {}},
        "[WARNING] models is empty: the gateway answers, and knows no model. Start from a preset in values/.",
    ),
    "code that comes with the weights": (
        {"models": {"chat": {**CHAT, "engine": {"trust_remote_code": True}}}},
        "[WARNING] models.chat.engine.trust_remote_code runs code that comes with the weights.",
    ),
    "weights without a revision": (
        {"models": {"chat": {**CHAT, "source": "hf://org/chat"}}},
        "[WARNING] models.chat.source names no revision: replicas may start with different weights. Add @<commit>.",
    ),
    "models that may outgrow their group": (
        {"models": {"chat": {**CHAT, "replicas": {"max": 9}}}},
        "[WARNING] workerGroups.l4: its models may grow to 9 x L4, its workers have 8 at most. "
        "Raise maxReplicas or lower the models' replicas.max.",
    ),
    "documents in a pod": (
        {
            "rag": {"docs": {**DOCS, "vectorStore": {"uri": "docs.db"}}},
            "pipelines": {"replicas": {"max": 1}},
        },
        "[WARNING] rag.docs.vectorStore.uri is a file in the pod: its documents go with the pod. "
        "Use a Milvus server for what must stay, or set pipelines.dataClaim.",
    ),
}


@pytest.mark.parametrize(("values", "warning"), WARNINGS.values(), ids=list(WARNINGS))
def test_what_is_unusual_is_warned_about(values: dict[str, Any], warning: str) -> None:
    assert warnings({**QUIET, **values}) == [warning]


def test_documents_on_a_claim_are_usual() -> None:
    pipelines = {"replicas": {"max": 1}, "dataClaim": "vectors"}
    rag = {"docs": {**DOCS, "vectorStore": {"uri": "docs.db"}}}
    assert warnings({**QUIET, "rag": rag, "pipelines": pipelines}) == []


def test_a_plain_upgrade_is_enough() -> None:
    assert "--force-conflicts" not in notes(QUIET)


def test_usual_values_give_no_warning() -> None:
    models = {"chat": {**CHAT, "replicas": {"max": 7}}, "embedder": EMBEDDER}
    assert warnings({**QUIET, "models": models, "rag": {"docs": DOCS}}) == []
