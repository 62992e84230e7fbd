from typing import Any

import pytest

from tools.object_schemas import Schema, core_schemas, custom_schemas, strict

META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
DEFINITIONS: dict[str, Schema] = {
    META: {"type": "object", "properties": {"name": {"type": "string"}}},
    QUANTITY: {"type": "string"},
    "Disk": {
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": f"#/definitions/{META}"},
            "size": {"$ref": f"#/definitions/{QUANTITY}"},
            "raw": {"$ref": "#/definitions/Raw"},
        },
        "x-kubernetes-group-version-kind": [{"group": "", "kind": "Disk", "version": "v1"}],
    },
    "Raw": {"type": "object"},
    "Unrelated": {"type": "object"},
}


def test_an_object_is_closed_at_every_level() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "string"}}}
    made = strict({"type": "object", "properties": {"list": {"type": "array", "items": inner}}})
    assert made["additionalProperties"] is False
    assert made["properties"]["list"]["items"]["additionalProperties"] is False


def test_an_object_that_keeps_unknown_fields_stays_open() -> None:
    assert strict({"type": "object", "x-kubernetes-preserve-unknown-fields": True})["additionalProperties"] is True


def test_the_values_of_a_map_are_strict_too() -> None:
    values = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert strict({"type": "object", "additionalProperties": values})["additionalProperties"] == {
        **values,
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("default", "required"),
    [({"default": 0}, ["name"]), ({}, ["name", "replicas"])],
    ids=["with a default", "without one"],
)
def test_a_required_field_may_be_left_out_if_it_has_a_default(default: dict[str, Any], required: list[str]) -> None:
    fields = {"name": {"type": "string"}, "replicas": {"type": "integer", **default}}
    assert strict({"type": "object", "properties": fields, "required": ["name", "replicas"]})["required"] == required


def test_an_int_or_string_may_be_either() -> None:
    assert strict({"x-kubernetes-int-or-string": True})["type"] == ["integer", "string"]


def test_a_nullable_field_may_be_null_and_others_may_not() -> None:
    assert strict({"type": "string", "nullable": True})["type"] == ["string", "null"]
    assert strict({"type": "string"})["type"] == "string"


def test_a_core_kind_is_closed_and_carries_what_it_refers_to() -> None:
    ((name, schema),) = core_schemas(DEFINITIONS)
    assert name == "v1/disk_v1.json"
    assert schema["additionalProperties"] is False
    assert schema["definitions"].keys() == {META, QUANTITY, "Raw"}
    assert schema["definitions"][META]["additionalProperties"] is False
    assert schema["definitions"][QUANTITY] == {"type": ["string", "number"]}
    assert "additionalProperties" not in schema["definitions"]["Raw"]


def test_a_custom_kind_has_a_schema_for_each_served_version_with_kubernetes_metadata() -> None:
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"metadata": {"type": "object"}}}}
    crd = {
        "spec": {
            "group": "example.test",
            "names": {"kind": "Disk"},
            "versions": [
                {"name": "v1", "served": True, "schema": schema},
                {"name": "v1alpha1", "served": False, "schema": schema},
            ],
        }
    }
    ((name, made),) = custom_schemas(crd, DEFINITIONS)
    assert name == "example.test/disk_v1.json"
    assert made["properties"]["metadata"] == {"$ref": f"#/definitions/{META}"}
    assert made["required"] == ["apiVersion", "kind", "metadata"]
