"""Our Markdown files, and the commands and links in them."""

import re
import shlex
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("charts", "docs", "images", "tools", "values")
FILES = sorted(
    [*REPOSITORY.glob("*.md"), *(file for folder in FOLDERS for file in (REPOSITORY / folder).rglob("*.md"))]
)


def name(file: Path) -> str:
    """A file's path in the repository."""
    return str(file.relative_to(REPOSITORY))


def prose(file: Path) -> str:
    """The text without its code blocks."""
    return re.sub(r"(?ms)^```.*?^```$", "", file.read_text())


def commands(file: Path) -> list[list[str]]:
    """The commands in a file's ``sh`` blocks, split into words."""
    blocks = re.findall(r"(?ms)^```(?:sh|bash|console|shell)\n(.*?)^```$", file.read_text())
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    return [words for line in lines if (words := shlex.split(line.removeprefix("$ "), comments=True))]


def anchors(file: Path) -> set[str]:
    """The anchors of a file's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", prose(file))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
