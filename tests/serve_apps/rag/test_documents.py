from io import BytesIO

import pytest
from pypdf import PdfReader, PdfWriter

from serve_apps.common.errors import InvalidRequest, UnsupportedMediaType
from serve_apps.rag.documents import Section, read
from tests.serve_apps.rag.pdf import pdf


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
        (pdf("text")[:300], "application/pdf", "is not a readable PDF"),
        (pdf("", ""), "application/pdf", "holds no text; a scanned PDF needs OCR first"),
    ],
)
def test_an_unreadable_document_says_why(content: bytes, content_type: str, problem: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(content, content_type, "the file")
    assert raised.value.message == f"document 'the file': {problem}"


def test_an_encrypted_pdf_says_so() -> None:
    writer = PdfWriter(clone_from=PdfReader(BytesIO(pdf("secret"))))
    writer.encrypt("password", algorithm="RC4-128")
    locked = BytesIO()
    writer.write(locked)
    with pytest.raises(InvalidRequest, match="is encrypted; send it without a password"):
        read(locked.getvalue(), "application/pdf", "a.pdf")


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


def test_html_keeps_title_and_headings_and_leaves_the_furniture_out() -> None:
    content = b"""<!doctype html><html><head><title>Guide</title><style>p {}</style></head><body>
<nav>Home | About</nav><!-- a comment -->
<h1>Guide</h1><p>An <b>intro</b>
 in two lines.</p><script>track()</script>
<h2>Setup <em>now</em></h2><ul><li>one</li><li>two</li></ul><pre>a
  b</pre><footer>Imprint</footer></body></html>"""
    assert read(content, "text/html", "a") == [
        Section("An intro in two lines.", ("Guide",)),
        Section("one\ntwo\na\n  b", ("Guide", "Setup now")),
    ]


def test_pdf_keeps_page_numbers_and_skips_blank_pages() -> None:
    assert read(pdf("first page", "", "third page"), "application/pdf", "a") == [
        Section("first page", page=1),
        Section("third page", page=3),
    ]


@pytest.mark.parametrize("content_type", ["", "application/octet-stream"])
def test_the_extension_decides_where_the_content_type_says_nothing(content_type: str) -> None:
    assert read(b"# A\ntext", content_type, "docs/README.MD") == [Section("text", ("A",))]


def test_a_stated_content_type_beats_the_extension() -> None:
    assert read(b"# A\ntext", "text/plain", "README.md") == [Section("# A\ntext")]


@pytest.mark.parametrize(
    ("content_type", "name", "shown"),
    [("image/png", "a.png", "image/png"), ("", "a.docx", "no content type")],
)
def test_an_unsupported_type_names_the_supported_ones(content_type: str, name: str, shown: str) -> None:
    with pytest.raises(UnsupportedMediaType) as raised:
        read(b"x", content_type, name)
    assert raised.value.message == (
        f"document '{name}': cannot read {shown}; send one of text/plain, text/markdown, text/html, application/pdf"
    )
