"""Pictures of a PDF's pages, drawn by PDFium: for what is neither text nor an image that can be taken out by itself.

PDFium is a large library in C++, and files are made to break such. It has no business outside of ``reading``, where it
may end its process at any time.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from pypdfium2 import PdfDocument, PdfiumError, PdfPage, raw

from serve_apps.rag import pdf_images
from serve_apps.rag.pdf_images import Image

#: Of a picture: a page of A4 at some 125 dots an inch, so that small print can be read.
MAX_PIXELS = 1_500_000
#: Dots for each point (1/72 inch) of a page at most: small pages are not blown up.
MAX_SCALE = 4.0

#: Lines and curves that make a drawing. A plot has some hundreds; the rules and frames of a page of text a few.
MIN_SEGMENTS = 100
#: Of a page, that are looked at for that: the others of a larger drawing cost time, and tell nothing new.
MAX_PATHS = 10_000
_MAX_DEPTH = 5

#: The levels that a channel's 256 are brought down to: the first with which a page has as few colours as a palette
#: holds. With the last every page has. A picture is a tenth as large for it.
_LEVELS = (16, 8, 6)
_PALETTE = 256


class Pages:
    """The pages of one document, counted from 1."""

    def __init__(self, document: PdfDocument) -> None:
        self._document = document
        self._seen: set[tuple[float, ...]] = set()

    def has_drawing(self, number: int) -> bool:
        """Whether a page draws something in lines that no page asked about before has at the same place, as a logo is.

        Raises:
            PdfiumError: the page is broken.
        """
        with self._page(number) as page:
            drawn = dict.fromkeys(_paths(page))
        fresh = [path for path in drawn if path not in self._seen]
        self._seen.update(fresh)
        return sum(segments for segments, *_ in fresh) >= MIN_SEGMENTS

    def picture(self, number: int) -> Image | None:
        """A page as it looks; None if it is far too long for its width.

        Raises:
            PdfiumError: the page is broken.
        """
        with self._page(number) as page:
            width, height = page.get_size()
            if not (width > 0 and height > 0):
                return None
            scale = min(math.sqrt(MAX_PIXELS / (width * height)), MAX_SCALE)
            if not 1 <= min(width, height) * scale <= max(width, height) * scale <= MAX_PIXELS / 100:
                return None
            bitmap = page.render(scale=scale, rev_byteorder=True)
            try:
                pixels = bytes(bitmap.buffer)
                row = bitmap.width * bitmap.n_channels
                rows = b"".join(pixels[at : at + row] for at in range(0, len(pixels), bitmap.stride))
                return _encoded(bitmap.width, bitmap.height, rows)
            finally:
                bitmap.close()

    @contextmanager
    def _page(self, number: int) -> Iterator[PdfPage]:
        page = self._document[number - 1]
        try:
            yield page
        finally:
            page.close()


@contextmanager
def opened(content: bytes) -> Iterator[Pages | None]:
    """The pages of a PDF; None if PDFium cannot read it."""
    try:
        document = PdfDocument(content)
    except PdfiumError:
        yield None
        return
    try:
        yield Pages(document)
    finally:
        document.close()


def _paths(page: PdfPage) -> Iterator[tuple[float, ...]]:
    """What is drawn in lines: how many, and where."""
    paths = page.get_objects(filter=[raw.FPDF_PAGEOBJ_PATH], max_depth=_MAX_DEPTH)
    for path, _ in zip(paths, range(MAX_PATHS), strict=False):
        yield raw.FPDFPath_CountSegments(path), *path.get_bounds()


def _encoded(width: int, height: int, rows: bytes) -> Image:
    """A PNG with a palette, of rows of red, green and blue."""
    for levels in _LEVELS:
        step = 255 / (levels - 1)
        coarse = rows.translate(bytes(round(round(value / step) * step) for value in range(256)))
        channels = coarse[::3], coarse[1::3], coarse[2::3]
        palette = dict.fromkeys(zip(*channels, strict=True))
        if len(palette) <= _PALETTE:
            break
    numbers = {colour: number for number, colour in enumerate(palette)}
    pixels = bytes(map(numbers.__getitem__, zip(*channels, strict=True)))
    return pdf_images.paletted(width, height, b"".join(map(bytes, palette)), pixels)
