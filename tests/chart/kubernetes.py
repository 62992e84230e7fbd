"""Whether rendered objects are ones that Kubernetes, with our custom resources, knows: no unknown kind or field."""

import functools
import json
import re
from collections.abc import Sequence
from typing import Any

from tests.chart.resident import Resident
from tools import object_schemas
from tools.gotools import binary


def validate_objects(objects: Sequence[dict[str, Any]]) -> None:
    """Check every object against its schema with ``kubeconform -strict``.

    Raises:
        AssertionError: Some objects do not fit; the message has kind, name and kubeconform's text for each.
    """
    faults = [fault for one in objects if (fault := _fault(json.dumps(one)))]
    if faults:
        raise AssertionError("\n".join(faults))


@functools.lru_cache(1024)
def _fault(text: str) -> str:
    """What is wrong with an object; nothing if nothing is. Most objects of a render were in one before it."""
    # The separator hands the document over, and kubeconform answers before it is given another.
    told = _kubeconform().ask(f"{text}\n---\n")
    if told.endswith(" is valid"):
        return ""
    # What comes before it says only that the object does not fit, and the path of the schema.
    reason = re.split(r"\.json#'| failed validation: ", told)[-1].strip(" -")
    one = json.loads(text)
    return f"{one.get('kind') or 'object without kind'}/{one['metadata']['name']}: {reason}"


@functools.cache
def _kubeconform() -> Resident:
    location = f"{object_schemas.folder()}/{object_schemas.LOCATION}"
    return Resident([binary("kubeconform"), "-strict", "-verbose", "-n", "1", "-schema-location", location])
