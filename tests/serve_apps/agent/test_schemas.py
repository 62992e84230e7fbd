import pytest

from serve_apps.agent.schemas import bounded, inlined
from serve_apps.agent.tools import ToolFailed


def test_what_a_schema_leaves_open_gets_an_end() -> None:
    assert bounded(
        {
            "type": "object",
            "properties": {
                "type": {"type": "string", "enum": ["string"]},
                "tags": {"type": "array", "items": {"type": "string"}},
                "day": {"type": "string", "format": "date"},
                "code": {"type": "string", "maxLength": 3},
            },
            "default": {"type": "string"},
        }
    ) == {
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": ["string"]},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 300}, "maxItems": 16},
            "day": {"type": "string", "format": "date"},
            "code": {"type": "string", "maxLength": 3},
        },
        "default": {"type": "string"},
    }


def test_references_are_written_out_and_circles_end() -> None:
    schema = {
        "type": "object",
        "properties": {"at": {"$ref": "#/$defs/a~1b"}, "tree": {"$ref": "#/$defs/tree"}},
        "$defs": {
            "a/b": {"type": "string"},
            "tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}},
        },
    }
    found = inlined(schema, schema)
    assert found["properties"]["at"] == {"type": "string"}
    assert found["properties"]["tree"]["properties"]["left"]["properties"]["left"]["type"] == "object"
    assert "$defs" not in str(found)


def test_references_that_multiply_come_to_an_end() -> None:
    schema = {f"s{level}": {"anyOf": [{"$ref": f"#/$defs/s{level + 1}"}] * 50} for level in range(9)}
    found = inlined({"$defs": {**schema, "s9": {"type": "string"}}}, {"$ref": "#/$defs/s0"})
    assert len(str(found)) < 5_000_000
    assert len(found["anyOf"]) == 50


def test_regular_expressions_of_others_are_not_searched_for() -> None:
    schema = {
        "properties": {"pattern": {"type": "string", "pattern": "(a+)+$"}},
        "patternProperties": {"(a+)+$": {"type": "string"}},
        "additionalProperties": False,
    }
    assert inlined(schema, schema) == {"properties": {"pattern": {"type": "string"}}}


@pytest.mark.parametrize("reference", ["#/$defs/none", "http://169.254.169.254/schema", "other.json#/a"])
def test_a_reference_to_elsewhere_is_refused(reference: str) -> None:
    with pytest.raises(ToolFailed, match="which is not in its document"):
        inlined({"$defs": {}}, {"$ref": reference})
