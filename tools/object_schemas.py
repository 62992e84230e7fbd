"""Strict JSON schemas of Kubernetes objects, for kubeconform: an unknown field is an error everywhere.

They are derived from what upstream ships: the OpenAPI document in the Kubernetes module and the `crds`. Only what the
API server does with a stored object is left out (defaults, CEL rules); a dry run against one checks that.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tools.cache import cache
from tools.crds import PINS, crd_files, module_folders
from tools.gotools import MODULES

Schema = dict[str, Any]

#: How kubeconform finds the schema of an object below `folder`.
LOCATION = "{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json"

KUBERNETES = MODULES / "kubernetes"
OPENAPI = "api/openapi-spec/swagger.json"
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
REFERENCE = "#/definitions/"

#: Types that the OpenAPI document calls strings, though numbers are welcome too.
STRINGS_OR_NUMBERS: dict[str, Schema] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
}


def folder() -> Path:
    """The folder of schemas, written if the cache does not have it.

    Raises:
        ToolUnavailable: Go cannot download the modules that hold the sources.
    """
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for source in (Path(__file__).with_name("crds.py"), PINS / "go.mod", KUBERNETES / "go.mod"):
        digest.update(source.read_bytes())
    written = cache() / f"object-schemas-{digest.hexdigest()[:12]}"
    if not written.exists():
        print("writing JSON schemas of Kubernetes objects (about 10 seconds, once) …", file=sys.stderr, flush=True)
        written.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=written.parent) as scratch:
            made = Path(scratch) / written.name
            for name, schema in _all_schemas():
                file = made / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(schema))
            try:
                made.rename(written)
            except OSError:
                if not written.exists():  # else another run was faster
                    raise
    return written


def _all_schemas() -> Iterator[tuple[str, Schema]]:
    kubernetes = module_folders(KUBERNETES, "k8s.io/kubernetes")["k8s.io/kubernetes"]
    definitions = json.loads((kubernetes / OPENAPI).read_text())["definitions"]
    yield from core_schemas(definitions)
    for file in crd_files():
        crd = yaml.load(file.read_text(), _Loader)  # noqa: S506  a safe loader
        yield from custom_schemas(crd, definitions)


def _file_name(group: str, kind: str, version: str) -> str:
    # kubeconform takes what stands before the slash of apiVersion for the group: "v1" for the core.
    return f"{group or version}/{kind.lower()}_{version}.json"


def core_schemas(definitions: Mapping[str, Schema]) -> Iterator[tuple[str, Schema]]:
    """File name and schema of every kind in the OpenAPI ``definitions`` that a manifest can hold."""
    for name, definition in definitions.items():
        names = definition.get("x-kubernetes-group-version-kind", ())
        # Kinds with several names are arguments of requests, such as DeleteOptions.
        if len(names) == 1 and {"apiVersion", "kind", "metadata"} <= definition["properties"].keys():
            schema = _strict_definition(name, definition)
            schema["required"] = sorted({*schema.get("required", ()), "apiVersion", "kind", "metadata"})
            yield _file_name(**names[0]), {**schema, "definitions": _reachable(schema, definitions)}


def custom_schemas(crd: Schema, definitions: Mapping[str, Schema]) -> Iterator[tuple[str, Schema]]:
    """File name and schema of each served version of ``crd``; ``definitions`` describe its metadata."""
    spec = crd["spec"]
    for version in spec["versions"]:
        if version["served"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"$ref": REFERENCE + OBJECT_META}
            schema["required"] = sorted({*schema.get("required", ()), "apiVersion", "kind", "metadata"})
            name = _file_name(spec["group"], spec["names"]["kind"], version["name"])
            yield name, {**schema, "definitions": _reachable(schema, definitions)}


def strict(node: Schema) -> Schema:
    """The JSON schema of a CRD's structural schema ``node``.

    An object is closed unless the API server would keep its unknown fields. A required field that has a default may be
    left out, since the API server fills it in first.
    """
    # Validators pass over keywords they do not know, such as x-kubernetes-list-type.
    made: Schema = {key: value for key, value in node.items() if key not in ("description", "required")}
    fields = node.get("properties", {})
    if node.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    elif node.get("nullable"):
        made["type"] = [node["type"], "null"]
    if "items" in node:
        made["items"] = strict(node["items"])
    if node.get("type") == "object":
        made["properties"] = {name: strict(field) for name, field in fields.items()}
        values = node.get("additionalProperties", bool(node.get("x-kubernetes-preserve-unknown-fields")))
        made["additionalProperties"] = strict(values) if isinstance(values, dict) else values
    if required := [name for name in node.get("required", ()) if "default" not in fields.get(name, {})]:
        made["required"] = required
    return made


def _strict_definition(name: str, definition: Schema) -> Schema:
    """An OpenAPI ``definition`` with its objects closed; one without properties is free-form there, so stays open."""
    if name in STRINGS_OR_NUMBERS:
        return STRINGS_OR_NUMBERS[name]
    # Only definitions have properties in this document; everything below them is a $ref, an array or a map.
    return {**definition, "additionalProperties": False} if "properties" in definition else dict(definition)


def _reachable(schema: Schema, definitions: Mapping[str, Schema]) -> dict[str, Schema]:
    """The definitions that ``schema`` refers to, and those that they refer to."""
    found: dict[str, Schema] = {}
    waiting = list(_references(schema))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _strict_definition(name, definitions[name])
            waiting += _references(found[name])
    return found


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix(REFERENCE)
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: to PyYAML a plain ``=``, which stands in an enum, would be a tag of its own."""

    yaml_implicit_resolvers = {  # noqa: RUF012  PyYAML reads it from the class
        first: resolvers for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items() if first != "="
    }
