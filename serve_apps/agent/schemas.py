"""JSON schemas that others wrote, made fit for one function: whole in themselves, and with an end. Pure."""

from collections.abc import Mapping
from typing import Any

from serve_apps.agent.tools import ToolFailed

#: How deep references are followed, and until how much has come of it: schemas that refer to themselves have no end,
#: and a few that each refer to several others are millions.
_MAX_DEPTH = 24
_MAX_NODES = 20_000
#: Bounds for what a schema leaves open: a small model that is held to nothing else may go on for ever.
_MAX_STRING_CHARS = 300
_MAX_ITEMS = 16
#: Keywords whose value is no schema, though it may look like one.
_VALUES = frozenset({"enum", "const", "default", "example", "examples"})
#: Regular expressions of others can take years to search. Whoever wrote them checks what he is sent.
_PATTERNS: dict[str, type] = {"pattern": str, "patternProperties": dict}


def inlined(document: Mapping[str, Any], node: Any) -> Any:
    """``node`` with the references to its ``document`` written out; where they go in circles, anything goes.

    Raises:
        ToolFailed: one leads to something that is not in the document.
    """
    return _inlined(document, node, 0, [])


def _inlined(document: Mapping[str, Any], node: Any, depth: int, nodes: list[None]) -> Any:
    """The same; ``nodes`` has one for each that was written so far."""
    nodes.append(None)
    if depth > _MAX_DEPTH:
        return {}
    if isinstance(node, list):
        return [_inlined(document, each, depth + 1, nodes) for each in node]
    if not isinstance(node, dict):
        return node
    if isinstance(reference := node.get("$ref"), str):
        target: Any = document
        for step in reference.removeprefix("#").removeprefix("/").split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, Mapping) else None
        if not reference.startswith("#/") or not isinstance(target, dict):
            raise ToolFailed(f"a schema refers to {reference}, which is not in its document")
        return _inlined(document, target, depth + 1, nodes) if len(nodes) < _MAX_NODES else {}
    left_out = {"$defs"} | {key for key, kind in _PATTERNS.items() if isinstance(node.get(key), kind)}
    if "patternProperties" in left_out:
        left_out.add("additionalProperties")  # the others
    return {key: _inlined(document, value, depth + 1, nodes) for key, value in node.items() if key not in left_out}


def bounded(schema: Any) -> Any:
    """``schema`` with an end to every string and list."""
    if isinstance(schema, list):
        return [bounded(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    within = {key: value if key in _VALUES else bounded(value) for key, value in schema.items()}
    if schema.get("type") == "string" and not {"enum", "const", "format", "pattern"} & schema.keys():
        within.setdefault("maxLength", _MAX_STRING_CHARS)
    if schema.get("type") == "array":
        within.setdefault("maxItems", _MAX_ITEMS)
    return within
