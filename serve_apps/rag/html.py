"""Web pages to sections.

A page is cut into tags and text by one pattern that reads every character once. The parser of Python's standard
library, which BeautifulSoup uses too, takes minutes for 200 KB of `<!--` and stops all other requests meanwhile.
"""

import codecs
import re
from collections.abc import Iterator
from html import unescape

from serve_apps.rag.sections import Headings, Section

#: Parts of a web page that are not its content.
_FURNITURE = frozenset(
    {
        *("script", "style", "noscript", "template", "nav", "footer", "aside", "svg", "iframe"),
        *("button", "select", "textarea", "object", "canvas"),
    }
)
#: What holds no tags, whatever it looks like.
_RAW = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in ("script", "style", "textarea", "iframe")}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_PARAGRAPHS = frozenset(
    {
        *("address", "article", "blockquote", "center", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption"),
        *("figure", "form", "header", "hr", "main", "ol", "p", "section", "summary", "table", "ul"),
    }
)
#: How other elements begin, in the manner of Markdown.
_OPENINGS = {"br": "\n", "li": "\n- ", "tr": "\n", "td": " | ", "th": " | "}

#: A comment, a declaration, a tag, or text. Each ends at the end of the page at the latest and gives nothing back
#: (`*+`), so no character is tried twice.
_TOKEN = re.compile(
    r"""
      <!--.*?(?:-->|\Z)
    | <(?:[!?]|/(?![a-zA-Z]))[^>]*+(?:>|\Z)
    | <(?P<closes>/?)(?P<tag>[a-zA-Z][^\s/>]*+) (?:[^>=]++ | =\s*"[^"]*+(?:"|\Z) | =\s*'[^']*+(?:'|\Z) | =)*+ (?:>|\Z)
    | (?P<text>[^<]++ | <+(?=<) | <)
    """,
    re.VERBOSE | re.DOTALL,
)

_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w:.-]+)""", re.IGNORECASE)
#: Where a page states its charset, if it does: https://html.spec.whatwg.org/#determining-the-character-encoding
_CHARSET_WITHIN = 1024
#: What the web takes a page for that states nothing and is not UTF-8.
_LEGACY_CHARSET = "windows-1252"

#: Numbers of no character; ``unescape`` would compute them.
_ENDLESS_REFERENCE = re.compile(r"&#[xX]?[0-9a-fA-F]{9,};?")
_SPACE = re.compile(r"\s+")
_BLANK_LINES = re.compile(r"\n{3,}")


def read(content: bytes, charset: str | None) -> Iterator[Section]:
    """A section per heading; the page's title stands above all headings.

    Raises:
        UnicodeError: it is not in the charset that was stated.
        LookupError: there is no such charset.
    """
    page = _Page()
    for closes, tag, text in _tokens(_decoded(content, charset)):
        if not tag:
            page.text(text)
        elif closes:
            page.end(tag)
        else:
            page.start(tag)
    yield from page.finished()


def _decoded(content: bytes, charset: str | None) -> str:
    if charset is None and (stated := _CHARSET.search(content[:_CHARSET_WITHIN])):
        charset = _known(stated[1].decode())
    if charset is not None:
        return content.decode(charset)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode(_LEGACY_CHARSET, errors="replace")


def _known(charset: str) -> str | None:
    """A page's own word on its charset counts only if there is such a one."""
    try:
        name = codecs.lookup(charset).name
    except LookupError:
        return None
    return "utf-8-sig" if name == "utf-8" else name


def _tokens(page: str) -> Iterator[tuple[bool, str, str]]:
    """Whether it is an end tag, the tag's name, or the text."""
    at = 0
    while at < len(page):
        token = _TOKEN.match(page, at)
        assert token is not None  # noqa: S101 -- every character begins one
        at = token.end()
        tag = (token["tag"] or "").lower()
        if tag or token["text"]:
            yield bool(token["closes"]), tag, token["text"] or ""
        if tag in _RAW and not token["closes"]:
            end = _RAW[tag].search(page, at)
            at = end.start() if end else len(page)


class _Page:
    """Collects the sections of a page from its tags and text."""

    def __init__(self) -> None:
        self._sections: list[Section] = []
        self._headings = Headings()
        self._text: list[str] = []
        self._furniture: list[str] = []
        """The furniture that is open; what stands in it is left out."""
        self._heading: str = ""
        """The tag of the title or heading that is open."""
        self._heading_text: list[str] = []
        self._title = ""
        self._preformatted = False

    def start(self, tag: str) -> None:
        """An element begins."""
        if tag in _FURNITURE:
            self._furniture.append(tag)
        elif self._furniture:
            return
        elif tag in _HEADINGS or (tag == "title" and not self._title):
            self._end_heading()
            self._heading = tag
        elif self._heading:
            self._heading_text.append(" ")
        elif tag == "pre":
            self._preformatted = True
            self._text.append("\n\n```\n")
        else:
            self._text.append("\n\n" if tag in _PARAGRAPHS else _OPENINGS.get(tag, ""))

    def end(self, tag: str) -> None:
        """An element ends, which may never have begun."""
        if tag in _FURNITURE:
            # What was open inside ends with it.
            while self._furniture and self._furniture.pop() != tag:
                pass
        elif self._furniture:
            return
        elif self._heading:
            if tag == self._heading:
                self._end_heading()
        elif tag == "pre" and self._preformatted:
            self._preformatted = False
            self._text.append("\n```\n\n")
        elif tag in _PARAGRAPHS:
            self._text.append("\n\n")
        elif tag == "tr":
            self._text.append(" |")

    def text(self, text: str) -> None:
        """Text between tags."""
        if self._furniture:
            return
        text = unescape(_ENDLESS_REFERENCE.sub("\N{REPLACEMENT CHARACTER}", text))
        if self._heading:
            self._heading_text.append(text)
        else:
            self._text.append(text.replace("\r\n", "\n") if self._preformatted else _SPACE.sub(" ", text))

    def finished(self) -> list[Section]:
        """The page has ended; these are its sections."""
        self._end_heading()
        self._end_section()
        return self._sections

    def _end_heading(self) -> None:
        if not self._heading:
            return
        tag, heading = self._heading, " ".join("".join(self._heading_text).split())
        self._heading, self._heading_text = "", []
        if tag == "title":
            self._title = heading
            self._headings.enter(0, heading)
        else:
            self._end_section()
            self._headings.enter(_HEADINGS[tag], "" if heading == self._title else heading)

    def _end_section(self) -> None:
        lines = "\n".join(line.rstrip() for line in "".join(self._text).split("\n"))
        if text := _BLANK_LINES.sub("\n\n", lines).strip():
            self._sections.append(Section(text, self._headings.path))
        self._text = []
