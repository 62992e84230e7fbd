import zlib
from io import BytesIO

import pytest
from pypdf import PdfReader, PdfWriter

from serve_apps.rag import pdf as reader
from serve_apps.rag.sections import Section, Unreadable
from tests.serve_apps.rag.pdf import pdf


def read(content: bytes) -> list[Section]:
    return [section for section in reader.read(content, None) if section.text]


def test_page_numbers_are_kept_and_blank_pages_count() -> None:
    assert read(pdf("first page", "", "third page")) == [Section("first page", page=1), Section("third page", page=3)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (pdf("text")[:300], "is not a readable PDF"),
        (pdf("text")[:-300], "is not a readable PDF"),
        (pdf("", ""), "holds no text; a scanned PDF needs OCR first"),
    ],
)
def test_a_broken_one_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(Unreadable, match=f"^{problem}$"):
        read(content)


def test_an_encrypted_one_says_so() -> None:
    writer = PdfWriter(clone_from=PdfReader(BytesIO(pdf("secret"))))
    writer.encrypt("password", algorithm="RC4-128")
    locked = BytesIO()
    writer.write(locked)
    with pytest.raises(Unreadable, match="is encrypted; send it without a password"):
        read(locked.getvalue())


def test_one_that_unpacks_to_too_much_is_refused() -> None:
    bomb = zlib.compress(b"(x) Tj " * 12_000_000)
    page = pdf("text").replace(b"/Length 32", f"/Filter /FlateDecode /Length {len(bomb)}".encode())
    drawing = page[page.index(b"stream\n") + 7 : page.index(b"\nendstream")]
    with pytest.raises(Unreadable):
        read(page.replace(drawing, bomb))


def test_one_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_SECONDS", -1)
    with pytest.raises(Unreadable, match="takes longer than -1 s to read; split it"):
        read(pdf("one", "two"))
