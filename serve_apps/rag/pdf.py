"""PDF documents to sections, with page numbers."""

import time
from collections.abc import Iterator
from io import BytesIO

from pypdf import PdfReader
from pypdf.errors import PyPdfError

from serve_apps.rag.sections import Section, Unreadable

#: What reading one document may take, in seconds; a page takes some 10 ms. pypdf bounds the memory of each page itself.
MAX_SECONDS = 120

#: pypdf meets broken files with whatever the broken part provokes, not only with its own errors.
BROKEN = (PyPdfError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, NotImplementedError)


def read(content: bytes, _: str | None) -> Iterator[Section]:
    """A section per page.

    Raises:
        Unreadable: broken, encrypted, without text, or too slow to read.
    """
    pages = []
    ends = time.monotonic() + MAX_SECONDS
    try:
        pdf = PdfReader(BytesIO(content))
        if pdf.is_encrypted:
            raise Unreadable("is encrypted; send it without a password")
        for page in pdf.pages:
            pages.append(page.extract_text().strip())
            if time.monotonic() > ends:
                raise Unreadable(f"takes longer than {MAX_SECONDS} s to read; split it")
    except BROKEN as error:
        raise Unreadable("is not a readable PDF") from error
    if not any(pages):
        raise Unreadable("holds no text; a scanned PDF needs OCR first")
    for number, text in enumerate(pages, start=1):
        yield Section(text, page=number)
