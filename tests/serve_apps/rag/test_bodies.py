import asyncio
import json
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from serve_apps.common.api import Query
from serve_apps.common.errors import InvalidRequest, ServingError, TooLarge, UnsupportedMediaType
from serve_apps.common.middleware import Message
from serve_apps.rag import bodies
from serve_apps.rag.ingestion import Document

LIMIT = 100


def documents(limit: int = LIMIT, **sent: Any) -> list[Document]:
    """The documents in a request, built as an HTTP client would."""
    return asyncio.run(bodies.read_documents(request(**sent), limit))


def request(**sent: Any) -> Request:
    built = httpx.Request("POST", "http://rag/", **sent)
    headers = [(name.encode(), value.encode()) for name, value in built.headers.items()]
    # The body comes byte by byte, as the slowest network would bring it.
    content = built.read()
    pieces = iter([content[at : at + 1] for at in range(len(content))])

    async def receive() -> Message:
        piece = next(pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def test_documents_come_as_json() -> None:
    sent = {"documents": [{"id": "a/b.md", "text": "é", "contentType": "text/plain", "metadata": {"k": [1]}}]}
    assert documents(json=sent) == [Document("a/b.md", "é".encode(), "text/plain", {"k": [1]})]


@pytest.mark.parametrize(("name", "content_type"), [("a.md", "text/markdown"), ("a", "text/plain")])
def test_a_text_without_a_type_is_what_its_name_says_or_plain(name: str, content_type: str) -> None:
    assert documents(json={"documents": [{"id": name, "text": "x"}]})[0].content_type == content_type


def test_documents_come_as_files_that_share_their_metadata() -> None:
    files = [("files", ("a.md", b"one", "text/markdown")), ("files", ("docs/b.bin", b"\x00", ""))]
    found = documents(files=files, data={"metadata": '{"k": 1}'})
    assert found == [Document("a.md", b"one", "text/markdown", {"k": 1}), Document("docs/b.bin", b"\x00", "", {"k": 1})]


def one(**changes: Any) -> dict[str, Any]:
    return {"documents": [{"id": "a", "text": "x", **changes}]}


@pytest.mark.parametrize(
    ("sent", "kind", "message"),
    [
        ({"json": one(text="x" * 101)}, TooLarge, "document 'a': larger than the pipeline's limit of 100 bytes"),
        (
            {"files": {"files": ("a", b"x" * 101)}},
            TooLarge,
            "document 'a': larger than the pipeline's limit of 100 bytes",
        ),
        ({"content": b"x" * 401, "headers": {"content-type": "application/json"}}, TooLarge, "larger than 400 bytes"),
        ({"files": {"files": ("a", b"x" * 401)}}, TooLarge, "larger than 400 bytes; send fewer or smaller documents"),
        ({"json": {"documents": []}}, InvalidRequest, "documents: List should have at least 1 item"),
        ({"json": one(contenttype="text/plain")}, InvalidRequest, r"documents.0.contenttype: Extra inputs"),
        ({"json": one(id="a\nb")}, InvalidRequest, r"documents.0.id: String should match pattern"),
        ({"json": one(id="")}, InvalidRequest, r"documents.0.id: String should have at least 1 character"),
        ({"json": one(id="x" * 513), "limit": 1000}, InvalidRequest, r"documents.0.id: String should have at most 512"),
        ({"json": one(metadata={"a": "x" * 9000}), "limit": 9000}, InvalidRequest, "'a': metadata must be a JSON obj"),
        ({"json": one(metadata={"a": {"b": 1}})}, InvalidRequest, "'a': metadata must be .*, and lists of these"),
        ({"json": one(metadata={"a": [None]})}, InvalidRequest, "'a': metadata must be a JSON object"),
        ({"json": {"documents": one()["documents"] * 2}}, InvalidRequest, "document 'a': sent twice in one request"),
        (
            {"content": b"{", "headers": {"content-type": "application/json"}},
            InvalidRequest,
            "the body is not JSON",
        ),
        ({"files": {"other": ("a", b"x")}}, InvalidRequest, "form field 'other': unknown; there are files and meta"),
        ({"files": {"metadata": ("a", b"{}")}}, InvalidRequest, "form field 'metadata': must be a JSON object"),
        (
            {"files": {"files": ("a", b"x")}, "data": {"metadata": "[]"}},
            InvalidRequest,
            "form field 'metadata': must be a JSON object of at most 8192 bytes, of texts, numbers, true and false",
        ),
        (
            {"files": {"files": ("a", b"x")}, "data": {"metadata": "{"}},
            InvalidRequest,
            "form field 'metadata': must be a JSON object",
        ),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, UnsupportedMediaType, "not as text/plain"),
        ({"content": b"x"}, UnsupportedMediaType, "not as an unnamed type"),
    ],
)
def test_a_wrong_upload_says_what_would_be_right(sent: dict[str, Any], kind: type[ServingError], message: str) -> None:
    limit = sent.pop("limit", LIMIT)
    with pytest.raises(kind, match=message):
        asyncio.run(bodies.read_documents(request(**sent), limit))


LINES = b"""{"id": "a.md", "text": "one", "metadata": {"lang": "en"}}

{"id": "b", "text": "two"}\r
"""


@pytest.mark.parametrize("media_type", ["application/jsonl", "application/x-ndjson; charset=utf-8"])
def test_documents_come_as_lines_of_json(media_type: str) -> None:
    assert documents(content=LINES, headers={"content-type": media_type}) == [
        Document("a.md", b"one", "text/markdown", {"lang": "en"}),
        Document("b", b"two", "text/plain", {}),
    ]


def test_a_file_of_such_lines_is_many_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [("files", ("corpus.JSONL", LINES, "")), ("files", ("c.md", b"three", "text/markdown"))]
    found = documents(1000, files=files, data={"metadata": '{"lang": "de", "by": "me"}'})
    assert [(each.id, each.metadata) for each in found] == [
        ("a.md", {"lang": "en", "by": "me"}),
        ("b", {"lang": "de", "by": "me"}),
        ("c.md", {"lang": "de", "by": "me"}),
    ]
    monkeypatch.setattr(bodies, "MAX_DOCUMENTS", 2)
    with pytest.raises(InvalidRequest, match="3 documents; send 2 or fewer at a time"):
        documents(1000, files=files)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 3: not JSON: unexpected end of data"),
        (b'{"id": "a"}', "line 3: text: Field required"),
        (b'["a"]', "line 3: body: Input should be"),
        (b'{"id": "a", "text": "x", "title": "A"}', "line 3: title: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_line_is_named(line: bytes, message: str) -> None:
    content = b'{"id": "z", "text": "x"}\n\n' + line
    with pytest.raises(InvalidRequest, match=f"^{message}"):
        documents(content=content, headers={"content-type": "application/jsonl"})
    with pytest.raises(InvalidRequest, match=f"^c.jsonl, {message}"):
        documents(files={"files": ("c.jsonl", content)})


def test_lines_without_a_document_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="the request holds no document"):
        documents(content=b"\n", headers={"content-type": "application/jsonl"})


def test_documents_at_the_limit_are_fine() -> None:
    assert len(documents(json=one(text="x" * 100))[0].content) == 100


def test_a_form_field_that_is_no_file_is_refused() -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\ntext\r\n--b--\r\n'
    with pytest.raises(InvalidRequest, match="form field 'files': must be files, with a file name"):
        documents(content=form, headers={"content-type": "multipart/form-data; boundary=b"})


def test_a_form_without_files_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="form field 'files': required"):
        documents(content=b"--b--\r\n", headers={"content-type": "multipart/form-data; boundary=b"})


def test_a_query_is_read_and_a_wrong_one_says_where() -> None:
    assert bodies.parse(Query, {"question": "Why?", "top_k": 3}).top_k == 3
    for wrong, path in (({"question": " "}, "question"), ({"question": "a", "topK": 3}, "topK"), ([], "body")):
        with pytest.raises(InvalidRequest, match=f"^{path}: "):
            bodies.parse(Query, wrong)


def test_a_json_body_over_its_limit_is_refused() -> None:
    content = json.dumps("x" * 50).encode()
    assert asyncio.run(bodies.read_json(request(content=content), 52)) == "x" * 50
    with pytest.raises(TooLarge, match="larger than 51 bytes"):
        asyncio.run(bodies.read_json(request(content=content), 51))
