"""The chart's `helm test`, against a gateway that answers as a test tells it to."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from serve_apps.common.protocol import DEGRADED_HEADER, INTERNAL_HEADER
from serve_apps.gateway import ask
from tests.serve_apps.gateway.servers import Answer, Received, Upstream, serving

JSON = {"content-type": "application/json"}
DOCUMENT = ask.DOCUMENT["id"]
DOCUMENTS = ("POST", "/v1/rag/docs/documents")
GONE = ("DELETE", f"/v1/rag/docs/documents/{DOCUMENT}")
CHAT = ("POST", "/v1/chat/completions")
EMBED = ("POST", "/v1/embeddings")
RERANK = ("POST", "/v1/rerank")
HEAR = ("POST", "/v1/audio/transcriptions")

#: Status, body and headers.
Given = tuple[int, bytes, dict[str, str]]


def good(body: object) -> Given:
    return 200, json.dumps(body).encode(), JSON


def refused(status: int, message: str) -> Given:
    return status, json.dumps({"error": {"message": message}}).encode(), JSON


def stream(*deltas: dict[str, Any], end: bytes = b"data: [DONE]\n\n", without: str = "") -> Given:
    events = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return (
        200,
        b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events) + end,
        {DEGRADED_HEADER: without},
    )


def citing(*documents: str) -> dict[str, Any]:
    return {"annotations": [{"type": "file_citation", "file_citation": {"document": one}} for one in documents]}


@dataclass
class Scripted:
    """The answers of each path, in order; the last one stays."""

    answers: dict[tuple[str, str], list[Given]]
    server: Upstream = field(init=False)

    def __post_init__(self) -> None:
        self.server = Upstream(self._behave)

    async def _behave(self, answer: Answer) -> None:
        asked = self.server.received[-1]
        script = self.answers[(asked.method, asked.path)]
        await answer.whole(*(script.pop(0) if len(script) > 1 else script[0]))

    @property
    def asked(self) -> list[tuple[str, str]]:
        return [(one.method, one.path) for one in self.server.received]

    def received(self, asked: tuple[str, str]) -> Received:
        return next(one for one in self.server.received if (one.method, one.path) == asked)


@dataclass
class Told:
    """How a run ended."""

    status: int
    lines: list[str]
    gateway: Scripted


Run = Callable[..., Told]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Asks a gateway with these models and answers; a list is several answers in order."""
    (tmp_path / "internal").mkdir()
    (tmp_path / "internal" / "token").write_text("internal-token")
    monkeypatch.setenv("LLM_SERVING_SECRETS", str(tmp_path))
    monkeypatch.setattr(ask, "PAUSE_S", 0.01)
    monkeypatch.setattr(ask, "FOUND_WITHIN_S", 2)

    def start(models: dict[str, str], answers: dict[tuple[str, str], Any] | None = None, within: float = 20) -> Told:
        listed = good({"data": [{"id": name, "task": task} for name, task in models.items()]})
        script = {("GET", "/v1/models"): listed, **(answers or {})}
        gateway = Scripted({path: each if isinstance(each, list) else [each] for path, each in script.items()})
        with serving(gateway.server) as url:
            status = ask.main([url, f"--within={within}"])
        return Told(status, capsys.readouterr().out.splitlines(), gateway)

    return start


PARIS = stream({"role": "assistant", "content": ""}, {"content": "Paris"}, {"content": " it is."}, {})
VECTORS = good({"data": [{"index": 0, "embedding": [0.6, 0.8]}, {"index": 1, "embedding": [1.0, 0.0]}]})
SCORES = good({"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]})
TAKEN = good({"documents": [{"id": DOCUMENT, "chunks": 1}]})
CITED = stream({"content": "Quillan"}, {"content": " Ashgrove."}, citing("old.txt", DOCUMENT))
RAG = {DOCUMENTS: TAKEN, CHAT: CITED, GONE: good({"status": "deleted"})}


def test_a_gateway_without_models_passes_by_listing_none(run: Run) -> None:
    told = run({})
    assert (told.status, told.lines) == (0, ["gateway: serves no models", "every model answered"])
    assert told.gateway.received(("GET", "/v1/models")).headers[INTERNAL_HEADER] == "internal-token"


def test_a_chat_model_streams_an_answer(run: Run) -> None:
    told = run({"chat": "generate"}, {CHAT: PARIS})
    assert told.status == 0
    assert told.lines[1].startswith('chat: "Paris it is." (')
    assert json.loads(told.gateway.received(CHAT).body).items() >= {"model": "chat", "stream": True}.items()


def test_an_agent_is_asked_as_a_chat_model_is(run: Run) -> None:
    told = run({"helper": "agent"}, {CHAT: PARIS})
    assert told.status == 0
    assert told.gateway.asked[1:] == [CHAT]


def test_an_embedder_gives_vectors_and_a_reranker_scores(run: Run) -> None:
    told = run({"embedder": "embed", "reranker": "score"}, {EMBED: VECTORS, RERANK: SCORES})
    assert told.status == 0
    said = "\n".join(told.lines)
    assert "embedder: vectors of 2 dimensions" in said
    assert "reranker: scores 0.100, 0.900" in said


def test_a_pipeline_cites_a_document_that_comes_and_goes(run: Run) -> None:
    told = run({"docs": "pipeline"}, RAG)
    assert told.status == 0
    assert told.lines[1].startswith(f'docs: "Quillan Ashgrove.", citing {DOCUMENT} (')
    assert told.gateway.asked[1:] == [DOCUMENTS, CHAT, GONE]


def test_a_pipelines_document_may_be_found_a_little_later(run: Run) -> None:
    told = run({"docs": "pipeline"}, {**RAG, CHAT: [stream({"content": "No idea."}), CITED]})
    assert told.status == 0
    assert f"docs: waiting: the answer cites nothing and not {DOCUMENT}, just taken in" in told.lines
    assert told.gateway.asked[1:] == [DOCUMENTS, CHAT, CHAT, GONE]


def test_models_are_waited_for(run: Run) -> None:
    starting = refused(503, 'Model "chat" is starting.')
    told = run({"chat": "generate"}, {CHAT: [starting, starting, PARIS]})
    assert told.status == 0
    assert told.lines.count('chat: waiting: 503 Model "chat" is starting.') == 1


def test_a_gateway_that_its_proxy_does_not_know_yet_is_waited_for(run: Run) -> None:
    nobody = (404, b"no route\n", {"content-type": "text/plain"})
    told = run({}, {("GET", "/v1/models"): [nobody, good({"data": []})]})
    assert told.lines[0] == "gateway: waiting: 404 no route"
    assert told.status == 0


FAILURES: dict[str, tuple[dict[str, str], dict[tuple[str, str], Any], str]] = {
    "the credential is refused": (
        {},
        {("GET", "/v1/models"): refused(401, "Send your API key.")},
        "FAILED gateway: 401 Send your API key.",
    ),
    "a chat model is broken": (
        {"chat": "generate"},
        {CHAT: refused(500, "The model failed.")},
        "FAILED chat: 500 The model failed.",
    ),
    "a chat model says nothing": (
        {"chat": "generate"},
        {CHAT: stream({"role": "assistant"}, {"content": " "})},
        "FAILED chat: an empty answer",
    ),
    "a stream ends early": (
        {"chat": "generate"},
        {CHAT: stream({"content": "Par"}, end=b"")},
        "FAILED chat: the answer broke off",
    ),
    "a stream ends with an error": (
        {"chat": "generate"},
        {CHAT: stream({"content": "Par"}, end=b'data: {"error": {"message": "the engine died"}}\n\n')},
        "FAILED chat: the answer broke off: the engine died",
    ),
    "vectors differ in length": (
        {"embedder": "embed"},
        {EMBED: good({"data": [{"embedding": [1.0]}, {"embedding": [1.0, 0.0]}]})},
        "FAILED embedder: 2 texts gave 2 vectors of [1, 2] dimensions",
    ),
    "a vector is all zeros": (
        {"embedder": "embed"},
        {EMBED: good({"data": [{"embedding": [1.0, 0.0]}, {"embedding": [0.0, 0.0]}]})},
        "FAILED embedder: a vector of zeros or of no numbers",
    ),
    "a document has no score": (
        {"reranker": "score"},
        {RERANK: good({"results": [{"index": 0, "relevance_score": 0.5}]})},
        "FAILED reranker: 2 documents got the scores [0.5]",
    ),
    "an answer is something else": (
        {"embedder": "embed"},
        {EMBED: good({"vectors": []})},
        "FAILED embedder: an answer that cannot be read: KeyError: 'data'",
    ),
    "a pipeline answers without its documents": (
        {"docs": "pipeline"},
        {**RAG, CHAT: stream({"content": "Hm."}, without="retrieval")},
        "FAILED docs: answered without: retrieval",
    ),
    "a pipeline never finds the document": (
        {"docs": "pipeline"},
        {**RAG, CHAT: stream({"content": "Hm."}, citing("old.txt"))},
        f"FAILED docs: no answer in time; last: the answer cites old.txt and not {DOCUMENT}, just taken in",
    ),
    "a document stays": (
        {"docs": "pipeline"},
        {**RAG, GONE: refused(500, "The store failed.")},
        "FAILED docs: 500 The store failed.",
    ),
}


@pytest.mark.parametrize(("models", "answers", "line"), FAILURES.values(), ids=list(FAILURES))
def test_a_failure_is_one_line(
    run: Run, models: dict[str, str], answers: dict[tuple[str, str], Any], line: str
) -> None:
    told = run(models, answers)
    assert (told.status, told.lines[-1]) == (1, line)


def test_the_document_goes_whatever_the_answer(run: Run) -> None:
    told = run({"docs": "pipeline"}, {**RAG, CHAT: refused(400, "No.")})
    assert told.status == 1
    assert told.gateway.asked[-1] == GONE


def test_one_broken_model_does_not_hide_the_others(run: Run) -> None:
    told = run({"embedder": "embed", "reranker": "score"}, {EMBED: refused(500, "The model failed."), RERANK: SCORES})
    assert told.status == 1
    assert any(line.startswith("reranker: scores") for line in told.lines)
    assert told.lines[-1] == "FAILED embedder: 500 The model failed."


def test_waiting_ends(run: Run) -> None:
    told = run({"chat": "generate"}, {CHAT: refused(503, "Starting.")}, within=1)
    assert (told.status, told.lines[-1]) == (1, "FAILED chat: no answer in time; last: 503 Starting.")


def test_a_gateway_that_is_not_there_is_waited_for_and_given_up(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    status = ask.main(["http://127.0.0.1:1", "--within=1"])
    assert status == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("FAILED gateway: no answer in time; last: ClientConnectorError")


def test_without_the_credential_nothing_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLM_SERVING_SECRETS", str(tmp_path))
    assert ask.main(["http://127.0.0.1:1"]) == 1
    assert capsys.readouterr().out.startswith("FAILED internal credential: cannot read")


def test_a_model_that_hears_is_given_a_form_with_a_file(run: Run) -> None:
    told = run({"whisper": "transcribe"}, {HEAR: good({"text": " Thank you."})})
    assert told.status == 0
    assert told.lines[1].startswith('whisper: "Thank you." heard in silence (')
    sent = told.gateway.received(HEAR)
    assert sent.headers["content-type"].startswith("multipart/form-data")
    assert b'name="model"\r\n\r\nwhisper\r\n' in sent.body
    assert b"RIFF" in sent.body


def test_a_transcription_that_is_no_text_fails(run: Run) -> None:
    told = run({"whisper": "transcribe"}, {HEAR: good({"text": None})})
    assert (told.status, told.lines[-1]) == (1, "FAILED whisper: a transcription that is no text: None")
