"""Whether rendered objects are ones that Kubernetes, with our custom resources, knows: no unknown kind or field."""

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from tools import object_schemas
from tools.gotools import binary


def validate_objects(objects: Sequence[dict[str, Any]]) -> None:
    """Check every object against its schema with ``kubeconform -strict``.

    Raises:
        AssertionError: Some objects do not fit; the message has kind, name and kubeconform's text for each.
    """
    location = f"{object_schemas.folder()}/{object_schemas.LOCATION}"
    done = subprocess.run(
        [binary("kubeconform"), "-strict", "-output", "json", "-schema-location", location],
        input="\n---\n".join(json.dumps(one) for one in objects),
        capture_output=True,
        text=True,
        check=False,
    )
    # Without this, a kubeconform that dies early would pass for one that found nothing.
    assert done.stdout, done.stderr
    faults = [_fault(resource) for resource in json.loads(done.stdout)["resources"]]
    if faults or done.returncode:
        raise AssertionError("\n".join([*faults, done.stderr]).strip())


def _fault(resource: dict[str, Any]) -> str:
    # What comes before it says only that the object does not fit, and the path of the schema.
    _, _, reason = resource["msg"].rpartition(".json#'")
    return f"{resource['kind'] or 'object without kind'}/{resource['name']}: {(reason or resource['msg']).strip(' -')}"
