from collections.abc import Callable
from typing import Any

import pytest

from serve_apps.common.errors import Unavailable
from serve_apps.common.protocol import TENANT_HEADER
from tests.serve_apps.rag.conftest import RagServer
from tests.serve_apps.rag.docx import docx, heading, paragraph
from tests.serve_apps.rag.fake_gateway import FakeGateway, refusal
from tests.serve_apps.rag.in_memory import InMemoryStore

Rag = Callable[..., RagServer]

DOCUMENTS = "/v1/rag/docs/documents"


def listed(server: RagServer, tenant: str = "acme") -> list[str]:
    response = server.client.get(DOCUMENTS, headers={TENANT_HEADER: tenant})
    return [document["id"] for document in response.json()["documents"]]


def test_a_word_document_is_cited_by_its_heading(rag: Rag) -> None:
    server = rag()
    content = docx(heading("Doors", "berschrift1") + paragraph("The gateway is the only way in."))
    sent = server.client.post(DOCUMENTS, files={"files": ("manual.docx", content)})
    assert sent.json() == {"documents": [{"id": "manual.docx", "chunks": 1, "status": "indexed"}]}
    citation = server.ask("What is the only way in?").json()["citations"][0]
    assert (citation["document"], citation["heading"]) == ("manual.docx", "Doors")


def test_lines_of_json_are_documents(rag: Rag) -> None:
    server = rag()
    lines = b'{"id": "a", "text": "one"}\n{"id": "b", "text": "two", "metadata": {"lang": "en"}}\n'
    sent = server.client.post(DOCUMENTS, content=lines, headers={"content-type": "application/jsonl"})
    assert [each["status"] for each in sent.json()["documents"]] == ["indexed", "indexed"]
    assert listed(server) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "status", "code"),
    [
        ("empty.pdf", b"", 400, "invalid_document"),
        ("broken.docx", b"PK\x03\x04", 400, "invalid_document"),
        ("image.png", b"\x89PNG", 415, "unsupported_media_type"),
        ("large.txt", b"x" * 1001, 413, "document_too_large"),
    ],
)
def test_one_unreadable_file_changes_nothing(rag: Rag, name: str, content: bytes, status: int, code: str) -> None:
    server = rag(maxDocumentBytes=1000)
    files = [("files", ("fine.md", b"text")), ("files", (name, content))]
    refused = server.client.post(DOCUMENTS, files=files)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert f"'{name}'" in refused.json()["error"]["message"]
    assert listed(server) == []


def test_a_partial_failure_is_told_for_each_document(rag: Rag, monkeypatch: pytest.MonkeyPatch) -> None:
    server = rag()
    replace = InMemoryStore.replace

    async def fail_on_b(store: InMemoryStore, stored: Any, *rows: Any) -> None:
        if stored.id == "b":
            raise Unavailable("The disk is full.", code="disk_full", retry_after_s=5)
        await replace(store, stored, *rows)

    monkeypatch.setattr(InMemoryStore, "replace", fail_on_b)
    sent = server.send({"id": "a", "text": "one"}, {"id": "b", "text": "two"})
    assert sent.status_code == 207
    assert sent.headers["retry-after"] == "5"
    error = {"message": "The disk is full.", "type": "server_error", "param": None, "code": "disk_full"}
    assert sent.json() == {
        "documents": [
            {"id": "a", "chunks": 1, "status": "indexed"},
            {"id": "b", "chunks": 0, "status": "failed", "error": error},
        ]
    }


def test_when_nothing_came_through_the_answer_is_the_error(rag: Rag, gateway: FakeGateway) -> None:
    server = rag()
    gateway.down["/v1/embeddings"] = refusal(503, "starting", {"retry-after": "7"})
    sent = server.send({"id": "a", "text": "one"}, {"id": "b", "text": "two"})
    assert (sent.status_code, sent.headers["retry-after"]) == (503, "7")
    assert sent.json()["error"]["message"] == "starting"


SECRET = {"id": "plan.md", "text": "The secret plan is a picnic.", "metadata": {"lang": "en"}}
QUESTION = "What is the secret plan?"


@pytest.fixture
def apart(rag: Rag) -> RagServer:
    """A pipeline whose tenants have collections of their own; acme has a document."""
    server = rag(tenancy="tenant")
    server.send(SECRET).raise_for_status()
    return server


def test_a_tenant_neither_sees_nor_cites_nor_deletes_what_is_anothers(apart: RagServer, gateway: FakeGateway) -> None:
    other = {TENANT_HEADER: "umbrella"}
    assert listed(apart, "umbrella") == []
    asked = apart.client.post("/v1/rag/docs/query", json={"question": QUESTION}, headers=other)
    assert asked.json()["citations"] == []
    messages = [{"role": "user", "content": QUESTION}]
    chat = apart.client.post("/v1/chat/completions", json={"model": "docs", "messages": messages}, headers=other)
    assert chat.json()["choices"][0]["message"].get("annotations", []) == []
    assert "picnic" not in str(gateway.bodies("/v1/chat/completions"))
    assert apart.client.delete(f"{DOCUMENTS}/plan.md", headers=other).status_code == 404
    assert listed(apart) == ["plan.md"]
    assert apart.ask(QUESTION).json()["citations"][0]["document"] == "plan.md"


def test_tenants_may_have_documents_of_one_name(apart: RagServer) -> None:
    other = {TENANT_HEADER: "umbrella"}
    body = {"documents": [SECRET | {"text": "The secret plan is a parade."}]}
    assert apart.client.post(DOCUMENTS, json=body, headers=other).json()["documents"][0]["status"] == "indexed"
    assert "picnic" in apart.ask(QUESTION).json()["citations"][0]["quote"]
    assert apart.client.delete(f"{DOCUMENTS}/plan.md", headers=other).status_code == 200
    assert listed(apart) == ["plan.md"]


def test_without_tenancy_all_share_the_documents(rag: Rag) -> None:
    server = rag()
    server.send(SECRET).raise_for_status()
    assert listed(server, "umbrella") == ["plan.md"]


def test_a_filter_decides_which_documents_answer(rag: Rag, gateway: FakeGateway) -> None:
    server = rag()
    server.send(SECRET, SECRET | {"id": "plan.de.md", "metadata": {"lang": "de"}}).raise_for_status()

    def cited(body: dict[str, Any]) -> set[str]:
        return {citation["document"] for citation in body["citations"]}

    assert cited(server.ask(QUESTION).json()) == {"plan.md", "plan.de.md"}
    assert cited(server.ask(QUESTION, filter={"lang": "de"}).json()) == {"plan.de.md"}
    annotations = server.chat(QUESTION, filter={"lang": "de"}).json()["choices"][0]["message"]["annotations"]
    assert {each["file_citation"]["document"] for each in annotations} == {"plan.de.md"}
    assert "filter" not in gateway.bodies("/v1/chat/completions")[-1]
    for refused in (server.ask(QUESTION, filter="de"), server.chat(QUESTION, filter="de")):
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "filter")
