"""The places where a text may be cut: blocks (paragraphs, lists, tables, code), each of units.

A unit is what should stay whole: a sentence, a list's item, a table's row, a line of code. Put together again, units
are the text they were cut from, white space between paragraphs aside.
"""

import re
from collections.abc import Iterator
from itertools import groupby, pairwise

from serve_apps.rag.sections import Unreadable

#: A unit at most, in characters; a longer one (text without sentences, code without lines) is cut at a space.
MAX_UNIT_CHARS = 4000

#: Units of a section at most; 10 MB of prose have half as many. Each takes 60 µs and 200 bytes.
MAX_UNITS = 200_000

_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_ITEM = re.compile(r"\s*(?:[-*+•‣]|\d{1,9}[.)])\s")
_ROW = re.compile(r"\s*\|")
#: The end of a sentence; not that of "e.g." or of an initial.
_SENTENCE_END = re.compile(r"""(?<![\s.(][A-Za-z])[.!?…]+["'”»)\]]*\s+|[。！？][」』)]*\s*""")  # noqa: RUF001


def blocks(text: str) -> list[list[str]]:
    """The blocks of a section's text, each as its units; none of them is only white space.

    Raises:
        Unreadable: there are more units than ``MAX_UNITS``.
    """
    found: list[list[str]] = []
    left = MAX_UNITS
    for given in _blocks(text):
        units = [unit for part in given for unit in _bounded(part) if unit.strip()]
        left -= len(units)
        if left < 0:
            raise Unreadable(f"has more than {MAX_UNITS} sentences, items or rows under one heading; split it")
        if units:
            found.append(units)
    return found


def parts(unit: str, number: int) -> list[str]:
    """A unit that is too long in about ``number`` parts, each shorter than it, cut at spaces where there are any."""
    size = max(-(-len(unit) // max(number, 2)), 1)
    found = []
    begin = 0
    while begin < len(unit):
        end = begin + size
        if end < len(unit):
            space = max(unit.rfind(mark, begin + size // 2, end) for mark in " \n\t")
            end = space + 1 if space > 0 else end
        found.append(unit[begin:end])
        begin = end
    return found


def _blocks(text: str) -> Iterator[list[str]]:
    for paragraph in _paragraphs(text.split("\n")):
        if _FENCE.match(paragraph[0]):
            yield [f"{line}\n" for line in paragraph]
            continue
        # A list may follow its introduction without a blank line, and an item may go on for several lines.
        for kind, lines in groupby(_kinds(paragraph), key=lambda each: each[0]):
            if kind == "prose":
                yield _sentences("\n".join(line for _, line in lines) + "\n")
            else:
                yield [f"{line}\n" for _, line in lines]


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Runs of lines between blank ones; a fenced block is one, with the blank lines in it."""
    paragraph: list[str] = []
    fence = ""
    for line in lines:
        opens = _FENCE.match(line)
        if fence:
            paragraph.append(line)
            if opens and opens[1].startswith(fence) and not line.strip().strip(fence[0]):
                yield paragraph
                paragraph, fence = [], ""
        elif opens:
            if paragraph:
                yield paragraph
            paragraph, fence = [line], opens[1]
        elif line.strip():
            paragraph.append(line)
        elif paragraph:
            yield paragraph
            paragraph = []
    if paragraph:
        yield paragraph


def _kinds(paragraph: list[str]) -> Iterator[tuple[str, str]]:
    """Each line or item of a paragraph, and whether it is prose, of a list or of a table."""
    item = ""
    for line in paragraph:
        if _ITEM.match(line):
            if item:
                yield "list", item
            item = line
        elif _ROW.match(line):
            if item:
                yield "list", item
            item = ""
            yield "table", line
        elif item:
            item += f"\n{line}"
        else:
            yield "prose", line
    if item:
        yield "list", item


def _sentences(text: str) -> list[str]:
    ends = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    return [text[begin:end] for begin, end in pairwise(ends)]


def _bounded(unit: str) -> list[str]:
    return [unit] if len(unit) <= MAX_UNIT_CHARS else parts(unit, -(-len(unit) // MAX_UNIT_CHARS))
