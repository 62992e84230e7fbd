"""Word documents (Office Open XML) to sections.

Read as a stream, from an archive that may be a bomb: nothing is unpacked beyond a bound, no tree is built, and XML that
brings its own entities is refused; Word writes none. The format: ECMA-376, part 1, chapter 17.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from xml.parsers import expat
from zipfile import BadZipFile, ZipFile

from serve_apps.rag.sections import Headings, Section, Unreadable

#: What the text may unpack to, in bytes; a thousand pages take about 20 MB.
MAX_TEXT_BYTES = 32 * 1024 * 1024
#: What the parts that describe it may; they take some 100 KB.
MAX_DESCRIPTION_BYTES = 4 * 1024 * 1024
#: Elements inside each other. Word goes to about 20, and 10 more for each table in a table.
MAX_DEPTH = 256
#: How far in a list's item may stand.
_MAX_INDENT = 8
_READ_BYTES = 256 * 1024

_CONTENT_TYPES = "[Content_Types].xml"
_MAIN = re.compile(r"(wordprocessingml|ms-word)\.(document|template)\.(macroEnabled(Template)?\.)?main\+xml$")
_STYLES = re.compile(r"wordprocessingml\.styles\+xml$")
_HEADING_STYLE = re.compile(r"heading ([1-9])", re.IGNORECASE)
_BLANK_LINES = re.compile(r"\n{3,}")
#: The outline level of text that is no heading.
_BODY_LEVEL = 9

#: What was moved away, how paragraphs were before a change, and what stands twice for programs that know less.
_LEFT_OUT = frozenset({"moveFrom", "pPrChange", "Fallback"})

_Attributes = dict[str, str]


def read(content: bytes, _: str | None) -> Iterator[Section]:
    """A section per heading; lists and tables stay what they are, as Markdown.

    Raises:
        Unreadable: it is not a Word document, is encrypted, or unpacks to too much.
    """
    try:
        with ZipFile(BytesIO(content)) as archive:
            parts = _ContentTypes()
            _parse(archive, _CONTENT_TYPES, parts, MAX_DESCRIPTION_BYTES)
            main, styles = parts.find(_MAIN), parts.find(_STYLES)
            if main is None:
                raise Unreadable("is not a Word document")
            known = _Styles()
            if styles is not None:
                _parse(archive, styles, known, MAX_DESCRIPTION_BYTES)
            body = _Body(known)
            _parse(archive, main, body, MAX_TEXT_BYTES)
    except (BadZipFile, KeyError, EOFError, zlib.error, NotImplementedError, expat.ExpatError, ValueError) as error:
        raise Unreadable("is not a readable Word document") from error
    except RuntimeError as error:  # how zipfile says that it wants a password
        raise Unreadable("is encrypted; send it without a password") from error
    body.end_section()
    yield from body.sections


class _Handler:
    """Told what stands in an XML part, by local names: Word has two namespaces for the same elements."""

    def start(self, tag: str, attributes: _Attributes) -> None:
        """An element begins."""

    def end(self, tag: str) -> None:
        """An element ends."""

    def data(self, text: str) -> None:
        """Text, in one piece."""


def _parse(archive: ZipFile, part: str, handler: _Handler, max_bytes: int) -> None:
    depth = 0

    def start(name: str, attributes: _Attributes) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise Unreadable(f"holds elements {MAX_DEPTH} deep in each other")
        handler.start(_local(name), {_local(key): value for key, value in attributes.items()})

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        handler.end(_local(name))

    def doctype(*_: object) -> None:
        raise Unreadable("holds XML with a document type, which Word does not write")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = handler.data
    parser.StartDoctypeDeclHandler = doctype
    unpacked = 0
    with archive.open(part) as stream:
        while block := stream.read(_READ_BYTES):
            unpacked += len(block)
            if unpacked > max_bytes:
                raise Unreadable(f"unpacks to more than {max_bytes // 2**20} MiB")
            parser.Parse(block, False)
    parser.Parse(b"", True)


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


class _ContentTypes(_Handler):
    """The archive's list of what each part is."""

    def __init__(self) -> None:
        self._types: dict[str, str] = {}

    def start(self, tag: str, attributes: _Attributes) -> None:
        if tag == "Override":
            self._types[attributes["PartName"].removeprefix("/")] = attributes["ContentType"]

    def find(self, kind: re.Pattern[str]) -> str | None:
        """The first part of a kind."""
        return next((part for part, content_type in self._types.items() if kind.search(content_type)), None)


class _Styles(_Handler):
    """Which paragraph styles are headings, and which are items. Ids are in Word's own language, headings' names not."""

    def __init__(self) -> None:
        self._levels: dict[str, int] = {}
        self._items: set[str] = set()
        self._based_on: dict[str, str] = {}
        self._style = ""

    def start(self, tag: str, attributes: _Attributes) -> None:
        value = attributes.get("val", "")
        if tag == "style":
            self._style = attributes.get("styleId", "")
        elif tag == "name" and value.lower() == "title":
            self._levels[self._style] = 0
        elif tag == "name" and (heading := _HEADING_STYLE.fullmatch(value)):
            self._levels[self._style] = int(heading[1])
        elif tag == "numPr":
            self._items.add(self._style)
        elif tag == "basedOn":
            self._based_on[self._style] = value
        elif tag == "outlineLvl" and int(value) < _BODY_LEVEL:
            self._levels.setdefault(self._style, int(value) + 1)

    def level(self, style: str) -> int | None:
        """A style's heading level, 0 for the title; None for a style of text."""
        return next((self._levels[each] for each in self._ancestry(style) if each in self._levels), None)

    def is_item(self, style: str) -> bool:
        """Whether a style makes items of a list."""
        return any(each in self._items for each in self._ancestry(style))

    def _ancestry(self, style: str) -> list[str]:
        """The style, the one it is based on, and so on."""
        found: list[str] = []
        while style and style not in found:
            found.append(style)
            style = self._based_on.get(style, "")
        return found


class _Paragraph:
    """A paragraph that is being read."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.level: int | None = None
        """Of the heading it is."""
        self.indent: int | None = None
        """Of the list item it is."""


class _Body(_Handler):
    """The document itself."""

    def __init__(self, styles: _Styles) -> None:
        self.sections: list[Section] = []
        self._styles = styles
        self._headings = Headings()
        self._text: list[str] = []
        self._left_out = 0
        self._in_run = 0
        self._paragraphs: list[_Paragraph] = []
        """Those that are open: a text box stands in a paragraph, and has paragraphs."""
        self._tables = 0
        """How many are open, one in the cell of the other."""
        self._cells: list[str] = []
        """Of the row that is read."""
        self._cell: list[str] = []
        self._starts: dict[str, Callable[[_Attributes], None]] = {
            "p": lambda _: self._paragraphs.append(_Paragraph()),
            "r": lambda _: self._count_runs(1),
            "pStyle": self._style,
            "outlineLvl": self._outline,
            "numPr": lambda _: self._indent(0),
            "ilvl": lambda attributes: self._indent(int(attributes.get("val", 0))),
            "numId": self._numbering,
            "tab": lambda _: self._write("\t"),
            "br": lambda _: self._write("\n"),
            "cr": lambda _: self._write("\n"),
            "noBreakHyphen": lambda _: self._write("-"),
            "tbl": self._start_table,
            "t": self._start_text,
        }
        self._ends: dict[str, Callable[[], None]] = {
            "p": self._end_paragraph,
            "r": lambda: self._count_runs(-1),
            "tc": self._end_cell,
            "tr": self._end_row,
            "tbl": self._end_table,
            "t": self._end_text,
        }
        self._in_text = False

    def start(self, tag: str, attributes: _Attributes) -> None:
        if tag in _LEFT_OUT or self._left_out:
            self._left_out += 1
        elif handle := self._starts.get(tag):
            handle(attributes)

    def end(self, tag: str) -> None:
        if self._left_out:
            self._left_out -= 1
        elif handle := self._ends.get(tag):
            handle()

    def data(self, text: str) -> None:
        if self._in_text and not self._left_out:
            self._write(text)

    def end_section(self) -> None:
        """What was read since the last heading is a section."""
        if text := _BLANK_LINES.sub("\n\n", "".join(self._text)).strip():
            self.sections.append(Section(text, self._headings.path))
        self._text = []

    def _start_text(self, _: _Attributes) -> None:
        self._in_text = True

    def _end_text(self) -> None:
        self._in_text = False

    def _count_runs(self, change: int) -> None:
        self._in_run += change

    def _write(self, text: str) -> None:
        # Outside a run, a tab is a tab stop.
        if self._paragraphs and (self._in_run or self._in_text):
            self._paragraphs[-1].text.append(text)

    def _style(self, attributes: _Attributes) -> None:
        style = attributes.get("val", "")
        if self._paragraphs:
            self._paragraphs[-1].level = self._styles.level(style)
            if self._styles.is_item(style):
                self._indent(0)

    def _outline(self, attributes: _Attributes) -> None:
        level = int(attributes.get("val", _BODY_LEVEL))
        if self._paragraphs:
            self._paragraphs[-1].level = level + 1 if level < _BODY_LEVEL else None

    def _indent(self, indent: int | None) -> None:
        if self._paragraphs:
            self._paragraphs[-1].indent = indent if indent is None else min(indent, _MAX_INDENT)

    def _numbering(self, attributes: _Attributes) -> None:
        if attributes.get("val") == "0":  # takes away what its style has
            self._indent(None)

    def _end_paragraph(self) -> None:
        paragraph = self._paragraphs.pop()
        text = "".join(paragraph.text).strip()
        if not text:
            return
        if self._tables:
            self._cell.append(text)
        elif paragraph.level is not None:
            self.end_section()
            self._headings.enter(paragraph.level, " ".join(text.split()))
        elif paragraph.indent is not None:
            self._text.append(f"{'  ' * paragraph.indent}- {text}\n")
        else:
            self._text.append(f"\n{text}\n\n")

    def _start_table(self, _: _Attributes) -> None:
        self._tables += 1
        if self._tables == 1:
            self._text.append("\n")

    def _end_cell(self) -> None:
        if self._tables == 1:
            self._cells.append(" ".join(" ".join(self._cell).split()))
            self._cell = []

    def _end_row(self) -> None:
        if self._tables == 1:
            self._text.append(f"| {' | '.join(self._cells)} |\n")
            self._cells = []

    def _end_table(self) -> None:
        self._tables -= 1
        if not self._tables:
            self._text.append("\n")
