"""``python -m tools.chart.reference`` writes docs/values.md, a table of every value; ``--check`` compares instead.

A key's meaning is its comment in values.yaml (``# -- …``, first paragraph) or, inside a named entry such as
``models.<name>``, its docstring in the types; its default is values.yaml's.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools.chart import schema
from tools.chart.generated import write_or_check

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "charts" / "llm-serving"
PAGE = REPOSITORY / "docs" / "values.md"
TOP = """# Values

<!-- Written by `make generate`. A key's meaning is its comment in values.yaml, or its docstring in the types. -->

Every key in the order of [values.yaml](../charts/llm-serving/values.yaml), which is the manual: it has the examples,
and says when to change what. What a change of each does to a running service is in [changes.md](changes.md). `<name>`
stands for the names that you give. `values.schema.json` refuses every key that is not here, with its path.
"""
#: Shown as a whole: their keys are those of `models`, `rag`, `models.<name>.autoscaling` and `gateway.tenants.<name>`.
UNEXPANDED = (
    "overrides.models",
    "overrides.rag",
    "gateway.autoscaling",
    "gateway.otherTenants",
    "pipelines.autoscaling",
)

_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][A-Za-z0-9.-]*):")


@dataclass(frozen=True)
class Row:
    """One key: its path, type, default (as YAML on one line) and meaning."""

    path: str
    type: str
    default: str
    description: str


@dataclass(frozen=True)
class Manual:
    """What values.yaml says: each commented key's meaning, and each top-level key's section."""

    descriptions: dict[str, str]
    sections: dict[str, str]


def read_manual(text: str) -> Manual:
    """Read the comments of values.yaml: ``## section``, ``# -- meaning`` above a key."""
    descriptions: dict[str, str] = {}
    sections: dict[str, str] = {}
    section, comment, open_keys = "", list[str](), list[tuple[int, str]]()
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("## "):
            section = bare.removeprefix("## ")
        elif bare.startswith("# -- "):
            comment = [bare.removeprefix("# -- ")]
        elif bare.startswith("#"):
            if comment:
                comment.append(bare.removeprefix("#").strip())
        elif found := _KEY.match(line):
            depth = len(found["indent"])
            open_keys = [(at, key) for at, key in open_keys if at < depth] + [(depth, found["key"])]
            path = ".".join(key for _, key in open_keys)
            if comment:
                paragraph = comment[: comment.index("")] if "" in comment else comment
                descriptions[path] = " ".join(paragraph)
            if depth == 0:
                sections[path] = section
            comment = []
        elif not bare:
            comment = []
    return Manual(descriptions, sections)


def rows() -> Iterator[Row]:
    """Every key of the values, in the order of values.yaml."""
    text = (CHART / "values.yaml").read_text()
    whole = schema.build()
    manual = read_manual(text)
    yield from _rows("", whole, yaml.safe_load(text), whole["definitions"], manual)


def _rows(path: str, node: dict[str, Any], values: Any, definitions: dict[str, Any], manual: Manual) -> Iterator[Row]:
    """The rows of ``node`` and below; ``values`` is what values.yaml has there, or ``...`` inside a named entry."""
    described = node.get("description", "")
    if "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]]
    if path:
        meaning = manual.descriptions.get(path, described).replace("``", "`")
        named = isinstance(node.get("additionalProperties"), dict) and "$ref" in node["additionalProperties"]
        if "properties" not in node or path in UNEXPANDED:
            yield Row(path, _type(node), _default(values), meaning)
            if path in UNEXPANDED:
                return
        if named:
            yield from _rows(f"{path}.<name>", node["additionalProperties"], ..., definitions, manual)
    for key, child in node.get("properties", {}).items():
        if path or key != "global":
            inner = values.get(key) if isinstance(values, dict) else ...
            yield from _rows(f"{path}.{key}".lstrip("."), child, inner, definitions, manual)


def _type(node: dict[str, Any]) -> str:
    if "enum" in node:
        return " or ".join(str(value) for value in node["enum"] if value is not None)
    kinds = node.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else [kind for kind in kinds if kind != "null"]
    return {"object": "map", "array": "list"}.get(kinds[0], kinds[0]) if kinds else "any"


def _default(values: Any) -> str:
    if values is ...:
        return ""
    if isinstance(values, dict) and values and all(isinstance(value, dict) for value in values.values()):
        return "see values.yaml"
    return f"`{json.dumps(values)}`"


def tables() -> str:
    """The values as one Markdown table for each section of values.yaml."""
    manual = read_manual((CHART / "values.yaml").read_text())
    lines: list[str] = []
    section = None
    for row in rows():
        of_row = manual.sections[row.path.partition(".")[0]]
        if of_row != section:
            section = of_row
            lines += ["", f"## {section}", "", "| key | type | default | meaning |", "|---|---|---|---|"]
        cells = (f"`{row.path}`", row.type, row.default, row.description)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines).strip()


def text() -> str:
    """The page."""
    return f"{TOP}\n{tables()}\n"


if __name__ == "__main__":
    sys.exit(write_or_check({PAGE: text()}, "python -m tools.chart.reference"))
