import pytest

from serve_apps.common.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from serve_apps.rag import documents
from serve_apps.rag.documents import read
from serve_apps.rag.sections import Section


def test_plain_text_is_one_section() -> None:
    assert read(b"\xef\xbb\xbfone\r\ntwo\n", "text/plain", "a") == [Section("one\ntwo")]


def test_text_in_another_charset_is_read_when_it_is_stated() -> None:
    assert read("naïve".encode("latin-1"), "text/plain; charset=latin-1", "a") == [Section("naïve")]


@pytest.mark.parametrize(
    ("content", "content_type", "problem"),
    [
        ("naïve".encode("latin-1"), "text/plain", "is not UTF-8 text; convert it or state its charset"),
        (b"text", "text/plain; charset=klingon", "states the unknown charset 'klingon'"),
        (b"<p>text", "text/html; charset=klingon", "states the unknown charset 'klingon'"),
        (b"a\0b", "text/plain", "is binary, not text"),
        (b" \n ", "text/plain", "holds no text"),
        (b"<nav>menu</nav><script>x()</script>", "text/html", "holds no text"),
        (b"no pdf at all", "application/pdf", "is not a readable PDF"),
        (b"no archive at all", documents.DOCX, "is not a readable Word document"),
        (b"a\n" * 100_001, "text/markdown", "has more than 100000 lines; split it"),
    ],
)
def test_an_unreadable_document_says_why(content: bytes, content_type: str, problem: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(content, content_type, "the file")
    assert raised.value.message == f"document 'the file': {problem}"


def test_markdown_keeps_the_heading_path_of_each_section() -> None:
    content = b"""---
title: front matter is not content
---
Before.
# Top
## First
One.

```
# no heading
```
> # quoted
## Second `code`
Two.

Next
====
Three.
"""
    assert read(content, "text/markdown", "a") == [
        Section("Before."),
        Section("One.\n\n```\n# no heading\n```\n> # quoted", ("Top", "First")),
        Section("Two.", ("Top", "Second `code`")),
        Section("Three.", ("Next",)),
    ]


@pytest.mark.parametrize("content_type", ["", "application/octet-stream"])
def test_the_extension_decides_where_the_content_type_says_nothing(content_type: str) -> None:
    assert read(b"# A\ntext", content_type, "docs/README.MD") == [Section("text", ("A",))]


def test_a_stated_content_type_beats_the_extension() -> None:
    assert read(b"# A\ntext", "text/plain", "README.md") == [Section("# A\ntext")]


@pytest.mark.parametrize(
    ("content_type", "name", "shown"),
    [
        ("image/png", "a.png", "image/png"),
        ("", "a.doc", ".doc files"),
        ("application/octet-stream", "b/a.zip", ".zip files"),
        ("", "a", "a file of no stated type"),
    ],
)
def test_an_unsupported_type_names_the_supported_ones(content_type: str, name: str, shown: str) -> None:
    with pytest.raises(UnsupportedMediaType) as raised:
        read(b"x", content_type, name)
    assert raised.value.message == (
        f"document '{name}': cannot read {shown}; send .txt, .md, .markdown, .html, .htm, .pdf, .docx, or state a "
        "content type: text/plain, text/markdown, text/html, application/pdf, "
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    )


def test_an_empty_file_of_any_format_is_refused() -> None:
    for media_type in documents.READERS:
        with pytest.raises(InvalidRequest):
            read(b"", media_type, "a")


def test_a_document_with_too_much_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_TEXT_CHARS", 4)
    assert read(b"four", "text/plain", "a")
    with pytest.raises(TooLarge, match="document 'a': holds more than 4 characters; split it"):
        read(b"fives", "text/plain", "a")
