"""Documents to text: the bytes of a file in, its sections out, with the headings and page numbers they had.

A reader per media type; ``READERS`` is the list of what this server can read.
"""

import re
from collections.abc import Callable, Iterator
from email.message import Message
from itertools import pairwise
from pathlib import PurePosixPath

from markdown_it import MarkdownIt

from serve_apps.common.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from serve_apps.rag import docx, html, pdf
from serve_apps.rag.sections import Headings, Section, Unreadable

#: The text of one document at most, in characters; a file may unpack to far more than its bytes.
MAX_TEXT_CHARS = 32 * 1024 * 1024

#: Lines of a Markdown document at most: their parser takes 50 µs and 1 KB for each.
MAX_MARKDOWN_LINES = 100_000

#: Where a client's tool knows no better; the file name's extension decides then.
_UNKNOWN_TYPES = frozenset({"", "application/octet-stream"})

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

_EXTENSIONS = {
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".pdf": PDF,
    ".docx": DOCX,
}

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def read(content: bytes, content_type: str, name: str) -> list[Section]:
    """The sections of a document, none of them empty.

    Args:
        content: the file's bytes.
        content_type: as the client stated it, parameters such as ``charset`` included; may be empty.
        name: the document's id or file name; its extension decides when the content type says nothing.

    Raises:
        UnsupportedMediaType: no reader for this type.
        InvalidRequest: broken, encrypted, in another encoding than stated, or without text.
        TooLarge: more text than ``MAX_TEXT_CHARS``.
    """
    media_type, charset = _type_of(content_type, name), _charset(content_type)
    reader = READERS.get(media_type)
    if reader is None:
        shown = media_type
        if media_type in _UNKNOWN_TYPES:
            shown = f"{extension} files" if (extension := PurePosixPath(name).suffix) else "a file of no stated type"
        raise UnsupportedMediaType(
            f"document {name!r}: cannot read {shown}; send {', '.join(_EXTENSIONS)}, "
            f"or state a content type: {', '.join(READERS)}",
            code="unsupported_media_type",
        )
    try:
        found = [section for section in reader(content, charset) if section.text]
    except UnicodeError as error:
        raise _invalid(name, f"is not {charset or 'UTF-8'} text; convert it or state its charset") from error
    except LookupError as error:
        raise _invalid(name, f"states the unknown charset {charset!r}") from error
    except Unreadable as error:
        raise _invalid(name, str(error)) from error
    if not found:
        raise _invalid(name, "holds no text")
    if sum(len(section.text) for section in found) > MAX_TEXT_CHARS:
        raise TooLarge(
            f"document {name!r}: holds more than {MAX_TEXT_CHARS} characters; split it", code="document_too_large"
        )
    return found


def is_pdf(content_type: str, name: str) -> bool:
    """Whether a document is read as a PDF."""
    return _type_of(content_type, name) == PDF


def type_of_name(name: str) -> str:
    """The media type that a file name's extension stands for; empty if it is none we read."""
    return _EXTENSIONS.get(PurePosixPath(name.lower()).suffix, "")


def _type_of(content_type: str, name: str) -> str:
    """As the client stated it, or where that says nothing as its name has it."""
    stated = content_type.partition(";")[0].strip().lower()
    return (type_of_name(name) or stated) if stated in _UNKNOWN_TYPES else stated


def _charset(content_type: str) -> str | None:
    header = Message()
    header["content-type"] = content_type
    return header.get_content_charset()


def _invalid(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"document {name!r}: {problem}", code="invalid_document")


def _decode(content: bytes, charset: str | None) -> str:
    text = content.decode(charset or "utf-8-sig")
    if "\0" in text:
        raise Unreadable("is binary, not text")
    return text.replace("\r\n", "\n")


def _read_plain(content: bytes, charset: str | None) -> Iterator[Section]:
    yield Section(_decode(content, charset).strip())


def _read_markdown(content: bytes, charset: str | None) -> Iterator[Section]:
    """A section per heading; the text stays Markdown, since models read it well."""
    text = _FRONT_MATTER.sub("", _decode(content, charset))
    lines = text.split("\n")
    if len(lines) > MAX_MARKDOWN_LINES:
        raise Unreadable(f"has more than {MAX_MARKDOWN_LINES} lines; split it")
    # Only the headings are asked for, so links and emphasis need no parsing.
    tokens = MarkdownIt("commonmark").disable("inline").parse(text)
    headings = Headings()
    begins = 0
    for opening, inline in pairwise(tokens):
        # Headings inside quotes and lists (level > 0) are part of what is quoted or listed.
        if opening.type != "heading_open" or opening.level or opening.map is None:
            continue
        yield Section("\n".join(lines[begins : opening.map[0]]).strip(), headings.path)
        headings.enter(int(opening.tag[1:]), " ".join(inline.content.split()))
        begins = opening.map[1]
    yield Section("\n".join(lines[begins:]).strip(), headings.path)


#: The media types this server reads.
READERS: dict[str, Callable[[bytes, str | None], Iterator[Section]]] = {
    "text/plain": _read_plain,
    "text/markdown": _read_markdown,
    "text/html": html.read,
    PDF: pdf.read,
    DOCX: docx.read,
}
