"""What a reader makes of a document: its sections, each under its headings."""

from dataclasses import dataclass


class Unreadable(Exception):
    """What is wrong with a document, as the end of a sentence that begins with its name."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a document that belongs together.

    Its text is written as Markdown is, whatever the format was: a blank line between paragraphs, ``- `` before the
    items of a list, ``|`` around the cells of a table's row, a fence around code.
    """

    text: str
    heading: tuple[str, ...] = ()
    """The headings it stands under, outermost first."""
    page: int | None = None
    """The page it is on, counted from 1, for paged formats."""


class Headings:
    """The headings above the place a reader has come to."""

    def __init__(self) -> None:
        self._by_level: dict[int, str] = {}

    @property
    def path(self) -> tuple[str, ...]:
        """Those in force, outermost first."""
        return tuple(self._by_level.values())

    def enter(self, level: int, heading: str) -> None:
        """A new heading ends every heading of its level or deeper; an empty one stands above nothing."""
        self._by_level = {other: text for other, text in self._by_level.items() if other < level}
        if heading:
            self._by_level[level] = heading
