"""Sections to chunks: pieces small enough for the embedder, large enough to mean something."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile

from serve_apps.rag.config import Chunking
from serve_apps.rag.documents import Section

#: A word. A longer run without a space (a URL, base64, a language that writes none) counts as several words.
_WORD = re.compile(r"\S{1,24}")

#: A section below this share of ``max_words`` is small: it joins small neighbours rather than stand alone. A section
#: that can stand alone does: an embedding of two subjects resembles a question about either only half as much.
_SMALL = 1 / 3

#: A chunk's text at most, in bytes of UTF-8: a Milvus VARCHAR ends at 65,535.
MAX_CHUNK_BYTES = 60_000

#: A chunk's heading path at most; what is longer is no heading and would crowd out the text.
MAX_HEADING_CHARS = 300


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document: what is embedded, found and cited."""

    document: str
    """The document's id."""
    index: int
    """Its place in the document, from 0."""
    text: str
    heading: str = ""
    """The headings above it, outermost first, joined by ``>``."""
    page: int | None = None
    """The page it begins on, counted from 1, for paged formats."""

    @property
    def passage(self) -> str:
        """What the embedder and the reranker read: a piece from the middle of a section needs its heading."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


def chunks(document: str, sections: Iterable[Section], settings: Chunking) -> list[Chunk]:
    """Cut ``sections`` into chunks of at most ``max_words``, overlapping within a section, never across."""
    pieces = (
        (section, text)
        for section in _join_small(sections, settings.max_words)
        for text in _windows(section.text, settings.max_words, settings.overlap_words)
    )
    return [
        Chunk(document, index, text, " > ".join(section.heading)[:MAX_HEADING_CHARS], section.page)
        for index, (section, text) in enumerate(pieces)
    ]


def count_words(text: str) -> int:
    """The words in ``text``, as chunk sizes count them."""
    return sum(1 for _ in _WORD.finditer(text))


def first_words(text: str, limit: int) -> str:
    """The beginning of ``text``, ``limit`` words long at most."""
    for number, word in enumerate(_WORD.finditer(text)):
        if number == limit:
            return text[: word.start()].rstrip()
    return text


def _join_small(sections: Iterable[Section], max_words: int) -> Iterator[Section]:
    """Join small neighbours, as long as they fit into one chunk together."""
    group: list[Section] = []
    size = 0
    for section in sections:
        words = count_words(section.text)
        small = max(words, size) < max_words * _SMALL
        if group and not (small and size + words <= max_words):
            yield _joined(group)
            group, size = [], 0
        group.append(section)
        size += words
    if group:
        yield _joined(group)


def _joined(group: list[Section]) -> Section:
    """One section of several: under the headings they share, each with the rest of its own."""
    if len(group) == 1:
        return group[0]
    levels = zip(*(section.heading for section in group), strict=False)
    shared = tuple(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))
    texts = (f"{' > '.join(section.heading[len(shared) :])}\n{section.text}".strip() for section in group)
    return Section("\n\n".join(texts), shared, group[0].page)


def _windows(text: str, max_words: int, overlap_words: int) -> Iterator[str]:
    """Slices of ``text``, its own line breaks and indentation kept."""
    words = [(word.start(), word.end()) for word in _WORD.finditer(text)]
    begin = 0
    while begin < len(words):
        end = min(begin + max_words, len(words))
        while len(window := text[words[begin][0] : words[end - 1][1]].encode()) > MAX_CHUNK_BYTES and end - begin > 1:
            end = begin + (end - begin) // 2
        yield window[:MAX_CHUNK_BYTES].decode(errors="ignore")
        if end == len(words):
            return
        begin = max(end - overlap_words, begin + 1)
