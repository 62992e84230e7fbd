"""Documents to text: the bytes of a file in, its sections out, with the headings and page numbers they had.

A reader per media type; ``READERS`` is the list of what this server can read.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from io import BytesIO
from itertools import pairwise
from pathlib import PurePosixPath

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString, PageElement, PreformattedString
from markdown_it import MarkdownIt
from pypdf import PdfReader
from pypdf.errors import PyPdfError

from serve_apps.common.errors import InvalidRequest, UnsupportedMediaType

#: Where a client's tool knows no better; the file name's extension decides then.
_UNKNOWN_TYPES = frozenset({"", "application/octet-stream"})

_EXTENSIONS = {
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".pdf": "application/pdf",
}

#: Parts of a web page that are not its content.
_HTML_FURNITURE = ("script", "style", "noscript", "template", "nav", "footer", "aside", "svg", "iframe", "button")
_HTML_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_HTML_BLOCK = re.compile(
    "address|article|blockquote|br|dd|details|div|dl|dt|figcaption|figure|form|header|hr|li|main|ol|p|pre|section|"
    "summary|table|td|th|tr|ul"
)

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_BLANK_LINES = re.compile(r"\n\s*\n")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a document that belongs together."""

    text: str
    heading: tuple[str, ...] = ()
    """The headings it stands under, outermost first."""
    page: int | None = None
    """The page it is on, counted from 1, for paged formats."""


def read(content: bytes, content_type: str, name: str) -> list[Section]:
    """The sections of a document, none of them empty.

    Args:
        content: the file's bytes.
        content_type: as the client stated it, parameters such as ``charset`` included; may be empty.
        name: the document's id or file name; its extension decides when the content type says nothing.

    Raises:
        UnsupportedMediaType: no reader for this type.
        InvalidRequest: broken, encrypted, in another encoding than stated, or without text.
    """
    media_type, charset = _parse(content_type)
    if media_type in _UNKNOWN_TYPES:
        media_type = type_of_name(name) or media_type
    reader = READERS.get(media_type)
    if reader is None:
        shown = media_type or "no content type"
        raise UnsupportedMediaType(
            f"document {name!r}: cannot read {shown}; send one of {', '.join(READERS)}", code="unsupported_media_type"
        )
    try:
        found = [section for section in reader(content, charset) if section.text]
    except UnicodeError as error:
        raise _invalid(name, f"is not {charset or 'UTF-8'} text; convert it or state its charset") from error
    except LookupError as error:
        raise _invalid(name, f"states the unknown charset {charset!r}") from error
    except _Unreadable as error:
        raise _invalid(name, str(error)) from error
    if not found:
        raise _invalid(name, "holds no text")
    return found


def type_of_name(name: str) -> str:
    """The media type that a file name's extension stands for; empty if it is none we read."""
    return _EXTENSIONS.get(PurePosixPath(name.lower()).suffix, "")


def _parse(content_type: str) -> tuple[str, str | None]:
    header = Message()
    header["content-type"] = content_type
    return content_type.partition(";")[0].strip().lower(), header.get_content_charset()


def _invalid(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"document {name!r}: {problem}", code="invalid_document")


class _Unreadable(Exception):
    """What is wrong with a document, as the end of a sentence."""


def _decode(content: bytes, charset: str | None) -> str:
    text = content.decode(charset or "utf-8-sig")
    if "\0" in text:
        raise _Unreadable("is binary, not text")
    return text.replace("\r\n", "\n")


def _read_plain(content: bytes, charset: str | None) -> Iterator[Section]:
    yield Section(_decode(content, charset).strip())


def _read_markdown(content: bytes, charset: str | None) -> Iterator[Section]:
    """A section per heading; the text stays Markdown, since models read it well."""
    text = _FRONT_MATTER.sub("", _decode(content, charset))
    lines = text.split("\n")
    tokens = MarkdownIt("commonmark").parse(text)
    path: dict[int, str] = {}
    begins = 0
    for opening, inline in pairwise(tokens):
        # Headings inside quotes and lists (level > 0) are part of what is quoted or listed.
        if opening.type != "heading_open" or opening.level or opening.map is None:
            continue
        yield Section("\n".join(lines[begins : opening.map[0]]).strip(), tuple(path.values()))
        path = _under(path, int(opening.tag[1:]), " ".join(inline.content.split()))
        begins = opening.map[1]
    yield Section("\n".join(lines[begins:]).strip(), tuple(path.values()))


def _under(path: dict[int, str], level: int, heading: str) -> dict[int, str]:
    """The heading path after a new heading: it ends every heading of its level or deeper."""
    above = {other: text for other, text in path.items() if other < level}
    return {**above, level: heading} if heading else above


def _read_html(content: bytes, charset: str | None) -> Iterator[Section]:
    """A section per heading; the page's title stands above all headings."""
    if charset:
        "".encode(charset)  # an unknown charset is the client's error; bs4 would guess another
    soup = BeautifulSoup(content, "html.parser", from_encoding=charset)
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    for furniture in soup.find_all([*_HTML_FURNITURE, "title"]):
        furniture.decompose()
    path = _under({}, 0, title)
    parts: list[str] = []
    for node in soup.descendants:
        if isinstance(node, Tag) and node.name in _HTML_HEADINGS:
            yield _html_section(parts, path)
            heading = node.get_text(" ", strip=True)
            path = _under(path, _HTML_HEADINGS[node.name], "" if heading == title else heading)
            parts = []
        elif isinstance(node, Tag) and _HTML_BLOCK.fullmatch(node.name):
            parts.append("\n")
        elif _is_text(node):
            preformatted = node.find_parent("pre")
            parts.append(str(node) if preformatted else re.sub(r"\s+", " ", str(node)))
    yield _html_section(parts, path)


def _is_text(node: PageElement) -> bool:
    """Whether ``node`` is text of the page: no comment or doctype, and not a heading's, which is in the path."""
    if not isinstance(node, NavigableString) or isinstance(node, PreformattedString):
        return False
    return node.find_parent(list(_HTML_HEADINGS)) is None


def _html_section(parts: list[str], path: dict[int, str]) -> Section:
    lines = (line.rstrip() for line in "".join(parts).split("\n"))
    return Section(_BLANK_LINES.sub("\n", "\n".join(lines)).strip(), tuple(path.values()))


def _read_pdf(content: bytes, _: str | None) -> Iterator[Section]:
    """A section per page."""
    try:
        pdf = PdfReader(BytesIO(content))
        if pdf.is_encrypted:
            raise _Unreadable("is encrypted; send it without a password")
        pages = [page.extract_text() for page in pdf.pages]
    except (PyPdfError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        # pypdf meets broken files with whatever the broken part provokes, not only with its own errors.
        raise _Unreadable("is not a readable PDF") from error
    if not any(text.strip() for text in pages):
        raise _Unreadable("holds no text; a scanned PDF needs OCR first")
    for number, text in enumerate(pages, start=1):
        yield Section(text.strip(), page=number)


#: The media types this server reads.
READERS: dict[str, Callable[[bytes, str | None], Iterator[Section]]] = {
    "text/plain": _read_plain,
    "text/markdown": _read_markdown,
    "text/html": _read_html,
    "application/pdf": _read_pdf,
}
