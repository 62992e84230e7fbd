"""Sections to chunks: pieces small enough for the embedder, large enough to mean something.

Sizes are in tokens of the embedder. Counting them means asking it, so that comes first, in one go for many documents:
``texts`` says what must be counted, and with the counts ``chunks`` decides by itself.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from serve_apps.rag import passages
from serve_apps.rag.sections import Section

#: A word. A longer run without a space (a URL, base64, a language that writes none) counts as several words.
_WORD = re.compile(r"\S{1,24}")

#: A section below this share of a chunk is small: it joins small neighbours rather than stand alone. A section that can
#: stand alone does: an embedding of two subjects resembles a question about either only half as much.
_SMALL = 1 / 3
#: A chunk that is filled to this share ends before a paragraph that would have to be cut.
_FULL = 1 / 2
#: The share of a chunk that the headings above it may take; beyond it the outer ones are left out.
_HEADINGS = 1 / 3

#: A chunk's text at most, in bytes of UTF-8: a Milvus VARCHAR ends at 65,535.
MAX_CHUNK_BYTES = 60_000

#: A chunk's heading path at most; what is longer is no heading and would crowd out the text.
MAX_HEADING_CHARS = 300

#: Between headings.
_SEPARATOR = " > "
#: That, or the line break after the last one, in tokens.
_JOINT_TOKENS = 1

#: The tokens of texts.
Sizes = Mapping[str, int]


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


@dataclass(frozen=True, slots=True)
class Outline:
    """A section and where it may be cut."""

    section: Section
    blocks: list[list[str]]

    def texts(self) -> Iterator[str]:
        """What must be counted before it can be cut."""
        yield from self.section.heading
        for units in self.blocks:
            yield from units

    def tokens(self, sizes: Sizes) -> int:
        """Of its text, without its headings."""
        return sum(sizes[unit] for units in self.blocks for unit in units)


def outline(sections: Iterable[Section]) -> list[Outline]:
    """The sections of a document, ready to be counted."""
    return [Outline(section, passages.blocks(section.text)) for section in sections]


def too_long(texts: Iterable[str], sizes: Sizes, max_tokens: int) -> list[str]:
    """The parts of those texts that no chunk can hold whole: they must be counted, too."""
    return [part for text in texts if _must_be_cut(text, sizes, max_tokens) for part in _parts(text, sizes, max_tokens)]


def chunks(
    document: str, outlines: Iterable[Outline], sizes: Sizes, max_tokens: int, overlap_tokens: int
) -> list[Chunk]:
    """Cut a document into chunks of at most ``max_tokens``, headings included.

    They overlap within a section, by whole units, and never across sections.

    Args:
        document: the document's id.
        outlines: its sections.
        sizes: the tokens of all their ``texts`` and, until there are none, of what of these is ``too_long``.
        max_tokens: of a chunk.
        overlap_tokens: of what is repeated from the end of the chunk before, at most.
    """
    found: list[Chunk] = []
    for group in _groups(outlines, sizes, max_tokens):
        shared, blocks = _joined(group, sizes, max_tokens)
        heading, tokens = _heading(shared, sizes, int(max_tokens * _HEADINGS))
        for text in _packed(blocks, max_tokens - tokens, overlap_tokens):
            found.append(Chunk(document, len(found), text, heading, group[0].section.page))
    return found


def count_words(text: str) -> int:
    """The words in ``text``, as bounds on a prompt count them."""
    return sum(1 for _ in _WORD.finditer(text))


def first_words(text: str, limit: int) -> str:
    """The beginning of ``text``, ``limit`` words long at most."""
    for number, word in enumerate(_WORD.finditer(text)):
        if number == limit:
            return text[: word.start()].rstrip()
    return text


@dataclass(frozen=True, slots=True)
class _Unit:
    """A piece of text that goes into a chunk whole."""

    text: str
    tokens: int

    @property
    def bytes(self) -> int:
        """Of its text, and of a line break before it."""
        return len(self.text.encode()) + 1


def _groups(outlines: Iterable[Outline], sizes: Sizes, max_tokens: int) -> Iterator[list[Outline]]:
    """Small neighbours together, as long as they fit into one chunk."""
    group: list[Outline] = []
    text = total = 0  # tokens of their text, and with all their headings
    for each in outlines:
        tokens = each.tokens(sizes)
        whole = tokens + _path_tokens(each.section.heading, sizes)
        small = max(tokens, text) < max_tokens * _SMALL
        if group and not (small and total + whole <= max_tokens):
            yield group
            group, text, total = [], 0, 0
        group.append(each)
        text += tokens
        total += whole
    if group:
        yield group


def _joined(group: Sequence[Outline], sizes: Sizes, max_tokens: int) -> tuple[tuple[str, ...], list[list[_Unit]]]:
    """The headings that sections share, and their blocks, each section's under the rest of its own headings."""
    levels = list(zip(*(each.section.heading for each in group), strict=False))
    depth = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    blocks: list[list[_Unit]] = []
    for each in group:
        own = each.section.heading[depth:]
        title = [_Unit(f"{_SEPARATOR.join(own)}\n", _path_tokens(own, sizes))] if own else []
        for units in each.blocks:
            fitting = [fit for unit in units for fit in _fitting(unit, sizes, max_tokens)]
            blocks.append([*title, *fitting])
            title = []
    return group[0].section.heading[:depth], blocks


def _heading(path: Sequence[str], sizes: Sizes, max_tokens: int) -> tuple[str, int]:
    """What stands above a chunk, and its tokens: the innermost headings, as many as fit."""
    while path and (_path_tokens(path, sizes) > max_tokens or len(_SEPARATOR.join(path)) > MAX_HEADING_CHARS):
        path = path[1:]
    return _SEPARATOR.join(path), _path_tokens(path, sizes)


def _path_tokens(path: Sequence[str], sizes: Sizes) -> int:
    return sum(sizes[heading] + _JOINT_TOKENS for heading in path)


def _fitting(unit: str, sizes: Sizes, max_tokens: int) -> Iterator[_Unit]:
    """The unit, or where no chunk can hold it its parts."""
    if _must_be_cut(unit, sizes, max_tokens):
        for part in _parts(unit, sizes, max_tokens):
            yield from _fitting(part, sizes, max_tokens)
    else:
        yield _Unit(unit, sizes[unit])


def _must_be_cut(unit: str, sizes: Sizes, max_tokens: int) -> bool:
    return len(unit) > 1 and sizes[unit] > max_tokens * (1 - _HEADINGS)


def _parts(unit: str, sizes: Sizes, max_tokens: int) -> list[str]:
    return passages.parts(unit, int(sizes[unit] / (max_tokens * (1 - _HEADINGS))) + 1)


def _packed(blocks: Iterable[Sequence[_Unit]], max_tokens: int, overlap_tokens: int) -> Iterator[str]:
    """The texts of a section's chunks: units one after the other, cut between blocks where that is near."""
    chunk = _Draft(max_tokens, overlap_tokens)
    for block in blocks:
        tokens = sum(unit.tokens for unit in block)
        whole = tokens <= max_tokens
        if whole and chunk.is_new and chunk.tokens > max_tokens * _FULL and not chunk.has_room(tokens, 0):
            yield chunk.text()
            chunk.go_on(tokens)
        for number, unit in enumerate(block):
            if chunk.is_new and not chunk.has_room(unit.tokens, unit.bytes):
                yield chunk.text()
                chunk.go_on(unit.tokens)
            chunk.add(unit, opens_block=number == 0)
    if chunk.is_new:
        yield chunk.text()


class _Draft:
    """The chunk that is being filled."""

    def __init__(self, max_tokens: int, overlap_tokens: int) -> None:
        self.tokens = 0
        self.is_new = False
        """Whether it holds more than what is repeated from the one before."""
        self._max_tokens = max_tokens
        self._overlap_tokens = overlap_tokens
        self._bytes = 0
        self._units: list[tuple[_Unit, bool]] = []

    def has_room(self, tokens: int, size: int) -> bool:
        """Whether as much more fits."""
        return self.tokens + tokens <= self._max_tokens and self._bytes + size <= MAX_CHUNK_BYTES

    def add(self, unit: _Unit, *, opens_block: bool) -> None:
        """Go on with ``unit``; there is room for it, or there is nothing yet that is new."""
        if not self.has_room(unit.tokens, unit.bytes):
            self._keep([])
        self._units.append((unit, opens_block))
        self.tokens += unit.tokens
        self._bytes += unit.bytes
        self.is_new = True

    def go_on(self, tokens: int) -> None:
        """Begin the next one, which needs room for ``tokens``, with the last units of this one."""
        room = min(self._overlap_tokens, self._max_tokens - tokens)
        begin = len(self._units)
        while begin and self._units[begin - 1][0].tokens <= room:
            begin -= 1
            room -= self._units[begin][0].tokens
        self._keep(self._units[begin:])
        self.is_new = False

    def text(self) -> str:
        """Its units, with a blank line between blocks."""
        text = "".join(f"\n{unit.text}" if opens_block else unit.text for unit, opens_block in self._units)
        return text.strip("\n").rstrip()

    def _keep(self, units: list[tuple[_Unit, bool]]) -> None:
        self._units = units
        self.tokens = sum(unit.tokens for unit, _ in units)
        self._bytes = sum(unit.bytes for unit, _ in units)
