import math
import os
from io import BytesIO

import pytest
from PIL import Image as Pillow
from pypdfium2 import PdfiumError

from serve_apps.rag import pdf_pages
from serve_apps.rag.pdf_images import Image
from serve_apps.rag.pdf_pages import MAX_PIXELS, MIN_SEGMENTS
from tests.serve_apps.rag.pdf import Page, pdf, picture, zigzag

#: A path has its beginning besides.
LINES = MIN_SEGMENTS - 1


def drawings(*pages: str | Page) -> list[bool]:
    with pdf_pages.opened(pdf(*pages)) as opened:
        assert opened is not None
        return [opened.has_drawing(number) for number in range(1, len(pages) + 1)]


def drawn(page: Page) -> Image | None:
    with pdf_pages.opened(pdf(page)) as opened:
        assert opened is not None
        return opened.picture(1)


def seen(page: Page) -> Pillow.Image:
    image = drawn(page)
    assert image is not None
    assert image.media_type == "image/png"
    return Pillow.open(BytesIO(image.content))


def test_a_drawing_is_a_page_with_many_lines() -> None:
    few, many = (Page("text", drawing=zigzag(lines)) for lines in (LINES - 1, LINES))
    assert drawings("text", few, many) == [False, False, True]


def test_what_is_on_every_page_is_part_of_none_but_the_first() -> None:
    logo = zigzag(LINES)
    moved = zigzag(LINES, at=40)
    assert drawings(*[Page("text", drawing=logo)] * 3, Page("text", drawing=moved)) == [True, False, False, True]
    assert drawings(Page("text", drawing=logo), Page("text", drawing=f"{logo} {moved}")) == [True, True]


def test_how_many_lines_are_looked_at_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page("text", drawing=f"{zigzag(1)} {zigzag(LINES)}")
    assert drawings(page) == [True]
    monkeypatch.setattr(pdf_pages, "MAX_PATHS", 1)
    assert drawings(page) == [False]


def test_a_picture_shows_lines_text_and_images_in_their_colours() -> None:
    blue = picture(1, 1, b"\0\0\xff")
    shown = seen(Page("Words", (blue,), "1 0 0 rg 300 50 100 100 re f")).convert("RGB")
    scale = shown.width / 600
    image, lines = (shown.getpixel((int(x * scale), int(y * scale))) for x, y in ((50, 150), (350, 100)))
    assert (image, lines) == ((0, 0, 255), (255, 0, 0))
    text = shown.crop((20 * scale, 85 * scale, 60 * scale, 102 * scale))
    assert text.convert("L").getextrema() == (0, 255)


@pytest.mark.parametrize("size", [(600, 200), (14_400, 14_400), (3_000, 100)])
def test_a_picture_has_as_many_pixels_as_it_may(size: tuple[float, float]) -> None:
    shown = seen(Page("text", size=size))
    assert shown.width * shown.height == pytest.approx(MAX_PIXELS, rel=0.02)
    assert shown.width / shown.height == pytest.approx(size[0] / size[1], rel=0.02)


def test_a_small_page_is_not_blown_up() -> None:
    assert seen(Page("text", size=(30, 20))).size == (120, 80)


@pytest.mark.parametrize("size", [(1_000_000, 1), (0.001, 10_000)])
def test_a_page_out_of_all_proportion_has_none(size: tuple[float, float]) -> None:
    assert drawn(Page("text", size=size)) is None


def test_a_page_of_many_colours_has_as_many_as_a_palette_holds() -> None:
    side = 200
    noise = seen(Page("text", (picture(side, side, os.urandom(3 * side * side)),), size=(100, 100)))
    assert noise.mode == "P"
    colours = noise.convert("RGB").getcolors()
    assert colours is not None
    assert len(colours) > math.prod([4] * 3)


@pytest.mark.parametrize("content", [b"", b"no PDF"])
def test_of_what_is_no_pdf_there_are_no_pages(content: bytes) -> None:
    with pdf_pages.opened(content) as opened:
        assert opened is None


def test_a_page_that_is_not_there_is_an_error() -> None:
    with pdf_pages.opened(pdf("one")) as opened:
        assert opened is not None
        for ask in (opened.has_drawing, opened.picture):
            with pytest.raises(PdfiumError):
                ask(2)
