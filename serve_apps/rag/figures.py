"""Figures of a PDF document: what is worth a look, each beside the text it stands in.

They are the images of a page as they are, and a picture of the page itself, where it draws in lines or has images that
cannot be had by themselves.
"""

import base64
import hashlib
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO

from pypdf import PageObject, PdfReader
from pypdf.generic import StreamObject
from pypdfium2 import PdfiumError

from serve_apps.rag import pdf, pdf_images, pdf_pages
from serve_apps.rag.chunking import Chunk
from serve_apps.rag.pdf_images import Image

#: Figures of a document, and images of one of its pages.
MAX_FIGURES = 64
MAX_FIGURES_OF_PAGE = 4
#: What is smaller is an ornament, in pixels of a side.
MIN_SIDE = 64
#: What is larger is left out, in pixels and in bytes of its file: models scale down what has more than a megapixel.
MAX_PIXELS = 12_000_000
MAX_FIGURE_BYTES = 1024 * 1024
#: Of all figures of a document, as a multiple of its own bytes. So an upload is never many times as large in memory.
MAX_SHARE = 2
#: So much they may always have: a drawing of a few lines makes a picture of some 40 KB.
MIN_ROOM = 256 * 1024
#: What reading the figures of one document may take, in seconds; those of the pages after it are left out.
MAX_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Figure:
    """An image of a document, or a page of it."""

    page: int
    """The page it is on, counted from 1."""
    media_type: str
    content: bytes
    chunk_page: int = 0
    """The page that the chunks around it begin on: a short page is in one chunk with the one before."""

    @property
    def url(self) -> str:
        """The figure itself, as a data URL."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.content).decode()}"


def of_pdf(content: bytes) -> Iterator[Figure]:
    """The figures of a PDF that could be read, page by page; an image that comes again, such as a logo, once.

    It raises nothing: a document is worth reading without its figures, too.
    """
    seen: set[bytes] = set()
    room = max(MAX_SHARE * len(content), MIN_ROOM)
    try:
        for figure in _figures(content, time.monotonic() + MAX_SECONDS):
            digest = hashlib.sha256(figure.content).digest()
            if digest in seen:
                continue
            if len(figure.content) > room:
                break
            seen.add(digest)
            yield figure
            room -= len(figure.content)
            if len(seen) == MAX_FIGURES:
                break
    except (*pdf.BROKEN, MemoryError):
        pass


def placed(figures: Sequence[Figure], chunks: Sequence[Chunk]) -> list[Figure]:
    """The figures of a document that was cut into ``chunks``, each by the last page that one begins on before it."""
    pages = sorted({chunk.page for chunk in chunks if chunk.page is not None})
    return [replace(each, chunk_page=pages[max(bisect_right(pages, each.page) - 1, 0)]) for each in figures]


def _figures(content: bytes, ends: float) -> Iterator[Figure]:
    missed: set[object] = set()
    with pdf_pages.opened(content) as pictures:
        for number, page in enumerate(PdfReader(BytesIO(content)).pages, start=1):
            images: list[Image] = []
            worth_a_picture = False
            for drawn in _images(page):
                if time.monotonic() > ends:
                    return
                image = _encoded(drawn) if len(images) < MAX_FIGURES_OF_PAGE else None
                if image is not None:
                    images.append(image)
                elif drawn.indirect_reference not in missed:  # or a logo would make a picture of every page
                    missed.add(drawn.indirect_reference)
                    worth_a_picture = True
            if pictures is not None and time.monotonic() < ends:
                picture = _picture(pictures, number, worth_a_picture)
                images = [*([picture] if picture else []), *images]
            yield from (Figure(number, each.media_type, each.content) for each in images)


def _images(page: PageObject) -> Iterator[StreamObject]:
    """Those of a page that are large enough."""
    for drawn in pdf_images.drawn(page):
        try:
            is_ornament = min(pdf_images.size(drawn)) < MIN_SIDE
        except pdf.BROKEN:
            continue
        if not is_ornament:
            yield drawn


def _encoded(drawn: StreamObject) -> Image | None:
    """An image as a file; None if it cannot be had, or is too large."""
    try:
        image = pdf_images.encoded(drawn, MAX_PIXELS)
    except pdf.BROKEN:
        return None
    return image if image is not None and len(image.content) <= MAX_FIGURE_BYTES else None


def _picture(pages: pdf_pages.Pages, number: int, has_missed: bool) -> Image | None:
    """A page as it looks, if it draws in lines or ``has_missed`` an image."""
    try:
        picture = pages.picture(number) if pages.has_drawing(number) or has_missed else None
    except PdfiumError:
        return None
    return picture if picture is not None and len(picture.content) <= MAX_FIGURE_BYTES else None
