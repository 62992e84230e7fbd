"""Figures of a PDF document: those of its images that are worth a look, each beside the text it stands in."""

import base64
import hashlib
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO

from pypdf import PdfReader

from serve_apps.rag import pdf, pdf_images
from serve_apps.rag.chunking import Chunk

#: Figures of a document, and of one of its pages.
MAX_FIGURES = 64
MAX_FIGURES_OF_PAGE = 4
#: What is smaller is an ornament, in pixels of a side.
MIN_SIDE = 64
#: What is larger is left out, in pixels and in bytes of its file: models scale down what has more than a megapixel.
MAX_PIXELS = 12_000_000
MAX_FIGURE_BYTES = 1024 * 1024
#: Of all figures of a document, as a multiple of its own bytes. So an upload is never many times as large in memory.
MAX_SHARE = 2
#: What reading the figures of one document may take, in seconds; those of the pages after it are left out.
MAX_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Figure:
    """An image of a document."""

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


def of_pdf(content: bytes) -> list[Figure]:
    """The figures of a PDF that could be read, page by page; an image that comes again, such as a logo, once.

    It raises nothing: a document is worth reading without its figures, too.
    """
    found: list[Figure] = []
    seen: set[bytes] = set()
    room = MAX_SHARE * len(content)
    try:
        for figure in _figures(content, time.monotonic() + MAX_SECONDS):
            digest = hashlib.sha256(figure.content).digest()
            if digest in seen or len(figure.content) > room:
                continue
            seen.add(digest)
            found.append(figure)
            room -= len(figure.content)
            if len(found) == MAX_FIGURES:
                break
    except (*pdf.BROKEN, MemoryError):
        pass
    return found


def placed(figures: Sequence[Figure], chunks: Sequence[Chunk]) -> list[Figure]:
    """The figures of a document that was cut into ``chunks``, each by the last page that one begins on before it."""
    pages = sorted({chunk.page for chunk in chunks if chunk.page is not None})
    return [replace(each, chunk_page=pages[max(bisect_right(pages, each.page) - 1, 0)]) for each in figures]


def _figures(content: bytes, ends: float) -> Iterator[Figure]:
    for number, page in enumerate(PdfReader(BytesIO(content)).pages, start=1):
        of_page = 0
        for drawn in pdf_images.drawn(page):
            if time.monotonic() > ends:
                return
            if of_page == MAX_FIGURES_OF_PAGE:
                break
            try:
                small = min(pdf_images.size(drawn)) < MIN_SIDE
                image = None if small else pdf_images.encoded(drawn, MAX_PIXELS)
            except pdf.BROKEN:
                continue  # the next one may be whole
            if image is not None and len(image.content) <= MAX_FIGURE_BYTES:
                of_page += 1
                yield Figure(number, image.media_type, image.content)
