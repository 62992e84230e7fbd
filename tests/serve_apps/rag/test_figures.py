import pytest

from serve_apps.rag import figures
from serve_apps.rag.chunking import Chunk
from serve_apps.rag.figures import MIN_SIDE, Figure
from tests.serve_apps.rag.pdf import Page, pdf, picture, zigzag


def photo(content: bytes, side: int = MIN_SIDE) -> bytes:
    """A JPEG, as far as a PDF is concerned."""
    return picture(side, side, content, more="/Filter /DCTDecode")


A, B, C = (photo(name * 100) for name in (b"a", b"b", b"c"))
#: What a picture of a page begins with.
PNG = b"\x89"


def found(*pages: str | Page) -> list[tuple[int, bytes]]:
    return [(figure.page, figure.content[:1]) for figure in figures.of_pdf(pdf(*pages))]


def test_figures_come_page_by_page_and_what_comes_again_once() -> None:
    assert found("text", Page("two", (A, B)), Page("three", (A, C))) == [(2, b"a"), (2, b"b"), (3, b"c")]


def test_ornaments_are_left_out() -> None:
    assert found(Page("text", (photo(b"a", MIN_SIDE - 1), photo(b"b", MIN_SIDE)))) == [(1, b"b")]


@pytest.mark.parametrize(
    "missed",
    [
        picture(MIN_SIDE, MIN_SIDE, bytes(4 * MIN_SIDE**2), space="/DeviceCMYK"),
        picture(MIN_SIDE, MIN_SIDE, b"no rows", more="/Filter /FlateDecode"),
        photo(b"x" * (figures.MAX_FIGURE_BYTES + 1)),
    ],
    ids=["not read", "broken", "large"],
)
def test_a_page_with_an_image_that_cannot_be_had_becomes_a_picture_before_its_others(missed: bytes) -> None:
    assert found("one", Page("two", (missed, A)), Page("logo again, text", (missed,))) == [(2, PNG), (2, b"a")]


def test_a_page_that_draws_in_lines_becomes_a_picture() -> None:
    assert found("text", Page("chart", drawing=zigzag(200)), Page("rule", drawing=zigzag(2))) == [(2, PNG)]


@pytest.mark.parametrize("content", [b"", b"%PDF-1.4", pdf(Page("text", (A,)))[:-200]])
def test_a_broken_document_has_none(content: bytes) -> None:
    assert list(figures.of_pdf(content)) == []


@pytest.mark.parametrize(
    ("bound", "value", "kept"),
    [
        ("MAX_FIGURES", 2, [(1, b"a"), (1, b"b")]),
        ("MAX_FIGURES_OF_PAGE", 1, [(1, PNG), (1, b"a"), (2, b"c")]),
        ("MAX_PIXELS", MIN_SIDE**2 - 1, [(1, PNG), (2, PNG)]),
        ("MAX_FIGURE_BYTES", 99, []),
        ("MAX_SECONDS", -1, []),
    ],
)
def test_how_much_is_kept_is_bounded(
    monkeypatch: pytest.MonkeyPatch, bound: str, value: int, kept: list[tuple[int, bytes]]
) -> None:
    pages = (Page("one", (A, B)), Page("two", (C,)))
    assert found(*pages) == [(1, b"a"), (1, b"b"), (2, b"c")]
    monkeypatch.setattr(figures, bound, value)
    assert found(*pages) == kept


@pytest.mark.parametrize(("room", "kept"), [(0, []), (150, [(1, b"a")]), (200, [(1, b"a"), (1, b"b")])])
def test_figures_have_a_share_of_their_document_and_room_in_a_small_one(
    monkeypatch: pytest.MonkeyPatch, room: int, kept: list[tuple[int, bytes]]
) -> None:
    monkeypatch.setattr(figures, "MAX_SHARE", 0)
    monkeypatch.setattr(figures, "MIN_ROOM", room)
    assert found(Page("one", (A, B))) == kept


def test_a_figure_is_beside_the_chunk_that_holds_its_page() -> None:
    chunks = [Chunk("a", index, "text", page=page) for index, page in enumerate([2, 2, 5])]
    given = [Figure(page, "image/png", b"") for page in (1, 2, 4, 5, 9)]
    assert [each.chunk_page for each in figures.placed(given, chunks)] == [2, 2, 2, 5, 5]
    assert figures.placed([], [Chunk("a", 0, "text")]) == []


def test_its_address_is_the_figure_itself() -> None:
    assert Figure(1, "image/png", b"\0\1").url == "data:image/png;base64,AAE="
