"""``python -m tools.chart.schema`` writes charts/llm-serving/values.schema.json; ``--check`` compares instead.

The schema is draft 7, which every Helm since 3.0 understands. Where a key may be left out it may also be null, since
that is how one values file takes back what another has set.
"""

import json
import sys
from pathlib import Path
from typing import Any

from tools.chart.generated import write_or_check
from tools.chart.values import Values

SCHEMA = Path(__file__).parents[2] / "charts" / "llm-serving" / "values.schema.json"


def build() -> dict[str, Any]:
    """The schema of the chart's values."""
    schema = Values.model_json_schema(ref_template="#/definitions/{model}")
    schema["definitions"] = schema.pop("$defs")
    for definition in schema["definitions"].values():
        _simplify(definition, schema["definitions"])
    _simplify(schema, schema["definitions"])
    # Helm adds it to every chart's values.
    schema["properties"]["global"] = {"type": "object", "description": "Helm's own; the chart reads nothing from it."}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema}


def _simplify(node: Any, definitions: dict[str, Any]) -> None:
    """Reword what pydantic writes, in place, so that Helm's messages name the key and not the wording.

    ``anyOf: [X, null]`` becomes X or null in one type. A pattern for the keys of a map goes away: Helm's message about
    ``propertyNames`` names a wrong path, so _validate.tpl checks names.
    """
    if isinstance(node, list):
        for item in node:
            _simplify(item, definitions)
        return
    if not isinstance(node, dict):
        return
    for child in node.values():
        _simplify(child, definitions)
    if isinstance(node.get("title"), str):
        del node["title"]
    # values.yaml holds the defaults; two places would disagree one day.
    node.pop("default", None)
    if patterns := node.pop("patternProperties", None):
        (node["additionalProperties"],) = patterns.values()
        node.pop("propertyNames", None)
    choices = node.get("anyOf", [])
    if len(choices) == 2 and choices[1] == {"type": "null"}:
        del node["anyOf"]
        node.update(choices[0])
        _allow_null(definitions[node["$ref"].rpartition("/")[2]] if "$ref" in node else node)


def _allow_null(node: dict[str, Any]) -> None:
    """Let ``node`` accept null beside what it accepts."""
    if isinstance(node["type"], str):
        node["type"] = [node["type"], "null"]
    if "enum" in node and None not in node["enum"]:
        node["enum"].append(None)


def text() -> str:
    """The schema as the file holds it."""
    return json.dumps(build(), indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(write_or_check({SCHEMA: text()}, "python -m tools.chart.schema"))
