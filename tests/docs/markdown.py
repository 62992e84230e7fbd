"""Our Markdown files, and the commands and links in them."""

import re
import shlex
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("bench", "charts", "docs", "images", "tools", "values")
FILES = sorted(
    [*REPOSITORY.glob("*.md"), *(file for folder in FOLDERS for file in (REPOSITORY / folder).rglob("*.md"))]
)


def name(file: Path) -> str:
    """A file's path in the repository."""
    return str(file.relative_to(REPOSITORY))


def prose(file: Path) -> str:
    """The text without its code blocks."""
    return re.sub(r"(?ms)^```.*?^```$", "", file.read_text())


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language, in the order of the text."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text)


def shell_lines(text: str) -> list[str]:
    """The lines of the ``sh`` blocks as a shell reads them: what a backslash continues is one line."""
    return [line for block in blocks(text, "sh") for line in re.sub(r"\\\n\s*", "", block).splitlines()]


def commands(file: Path) -> list[list[str]]:
    """A file's commands, split into words."""
    return [words for line in shell_lines(file.read_text()) if (words := shlex.split(line, comments=True))]


def anchors(file: Path) -> set[str]:
    """The anchors of a file's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", prose(file))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
