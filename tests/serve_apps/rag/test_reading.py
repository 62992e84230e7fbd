import os
from collections.abc import Callable, Iterator

import pytest

from serve_apps.common.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from serve_apps.rag import documents, reading
from serve_apps.rag.figures import Figure
from serve_apps.rag.reading import Content, Reader, content_of
from serve_apps.rag.sections import Section
from tests.serve_apps.rag.conftest import RagServer
from tests.serve_apps.rag.docx import docx, paragraph
from tests.serve_apps.rag.pdf import Page, pdf, picture, zigzag

MARKDOWN = b"# Top\n\nText \xc3\xa4.\n\n## Below\n\nMore."
#: A page that is drawn in so many steps that reading it takes many seconds.
ENDLESS = pdf("a) Tj (" * 400_000)
#: A drawing whose lines all cross each other, again and again: read at once, and drawn for minutes.
TANGLE = ("0 0 m " + " ".join(f"{x * 7919 % 600} {x * 104729 % 200} l" for x in range(3_000)) + " f* ") * 20
#: A Word document of few bytes and much text, below what is refused as a bomb.
LARGE = docx(paragraph("x" * (20 * 2**20)))


@pytest.fixture
def reader() -> Iterator[Callable[..., Reader]]:
    """Starts readers with the given bounds."""
    started: list[Reader] = []

    def start(**bounds: int) -> Reader:
        started.append(Reader(**bounds))
        return started[-1]

    yield start
    for each in started:
        each.close()


def read(reader: Reader, content: bytes, kind: str, name: str, with_figures: bool = False) -> Content:
    return content_of(reader.read(content, kind, name, with_figures))


def process_of(reader: Reader) -> int:
    assert reader._process is not None
    return reader._process.pid


def test_it_reads_as_in_this_process_and_keeps_its_own(reader: Callable[..., Reader]) -> None:
    one = reader()
    for content, kind, name in (
        (MARKDOWN, "text/markdown", "a.md"),
        (pdf("Page one", "Page two"), "", "b.pdf"),
        (docx(paragraph("Words")), "", "c.docx"),
    ):
        assert read(one, content, kind, name) == Content(documents.read(content, kind, name), [])
        assert process_of(one) != os.getpid()
    first = process_of(one)
    assert read(one, b"text", "text/plain", "d.txt") == Content([Section("text")], [])
    assert process_of(one) == first


def test_the_figures_of_a_pdf_come_with_it_where_they_are_wanted(reader: Callable[..., Reader]) -> None:
    one = reader()
    photo = picture(100, 100, b"\xff\xd8 a file", more="/Filter /DCTDecode")
    content = pdf("one", Page("two", (photo,)))
    assert read(one, content, "", "a.pdf", True).figures == [Figure(2, "image/jpeg", b"\xff\xd8 a file")]
    assert read(one, content, "", "a.pdf").figures == []
    assert read(one, MARKDOWN, "", "a.md", True).figures == []


def test_figures_that_take_too_long_cost_no_text_and_none_of_those_before_them(reader: Callable[..., Reader]) -> None:
    one = reader(max_cpu_s=3)
    found = read(one, pdf(Page("one", drawing=zigzag(200)), Page("two", drawing=TANGLE), "three"), "", "a.pdf", True)
    assert [each.text for each in found.sections] == ["one", "two", "three"]
    assert [each.page for each in found.figures] == [1]
    assert read(one, MARKDOWN, "text/markdown", "a.md")


@pytest.mark.parametrize(
    ("content", "kind", "error"),
    [(b"x", "image/png", UnsupportedMediaType), (b"x", "application/pdf", InvalidRequest), (b"", "", Exception)],
)
def test_a_refusal_is_the_readers_own(
    reader: Callable[..., Reader], content: bytes, kind: str, error: type[Exception]
) -> None:
    one = reader()
    with pytest.raises(error) as here:
        documents.read(content, kind, "a")
    with pytest.raises(error) as there:
        read(one, content, kind, "a")
    assert (str(there.value), type(there.value)) == (str(here.value), type(here.value))
    assert read(one, b"text", "text/plain", "a") == Content([Section("text")], [])


@pytest.mark.parametrize(
    ("content", "name", "bounds"),
    [(ENDLESS, "endless.pdf", {"max_cpu_s": 1}), (LARGE, "large.docx", {"max_bytes": 80 * 2**20})],
)
def test_a_file_that_takes_too_much_is_refused_and_the_next_one_read(
    reader: Callable[..., Reader], content: bytes, name: str, bounds: dict[str, int]
) -> None:
    one = reader(**bounds)
    assert read(one, MARKDOWN, "text/markdown", "a.md")
    first = process_of(one)
    with pytest.raises(TooLarge, match=f"document '{name}': takes more memory or time to read than a document may"):
        read(one, content, "", name)
    assert read(one, MARKDOWN, "text/markdown", "a.md")
    assert process_of(one) != first


def test_a_process_that_stands_still_is_killed(reader: Callable[..., Reader]) -> None:
    one = reader(max_seconds=0)
    with pytest.raises(TooLarge):
        read(one, ENDLESS, "", "endless.pdf")


def test_a_process_that_was_killed_meanwhile_is_replaced(reader: Callable[..., Reader]) -> None:
    one = reader()
    assert read(one, MARKDOWN, "text/markdown", "a.md")
    assert one._process is not None
    one._process.kill()
    one._process.wait()
    assert read(one, MARKDOWN, "text/markdown", "a.md")


def test_elements_deep_in_each_other_are_read(reader: Callable[..., Reader]) -> None:
    deep = b"<div>" * 200_000 + b"text"
    assert read(reader(), deep, "text/html", "a.html") == Content([Section("text")], [])


def test_it_has_no_credentials(reader: Callable[..., Reader], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_OURS", "x")
    one = reader()
    read(one, MARKDOWN, "text/markdown", "a.md")
    with open(f"/proc/{process_of(one)}/environ", "rb") as environment:  # noqa: PTH123  # not a file
        assert b"SECRET_OF_OURS" not in environment.read()


def test_a_hostile_upload_harms_no_other(
    rag: Callable[..., RagServer], monkeypatch: pytest.MonkeyPatch, reader: Callable[..., Reader]
) -> None:
    bounded = reader(max_cpu_s=1)
    monkeypatch.setattr(reading, "_read", bounded.read)
    server = rag()
    for files, status in (({"files": ("a.pdf", ENDLESS, "")}, 413), ({"files": ("b.md", MARKDOWN, "")}, 200)):
        response = server.client.post("/v1/rag/docs/documents", files=files)
        assert response.status_code == status, response.text
    assert [each["id"] for each in server.client.get("/v1/rag/docs/documents").json()["documents"]] == ["b.md"]
