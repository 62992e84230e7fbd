"""What changes in a model's running replicas, written into the config that Serve has of it. Pure."""

import copy
from typing import Any

from pydantic import Field

from serve_apps.common.config import Config
from serve_apps.llm.config import AdapterSources, Sampling

#: What a Serve config has beside applications, and Serve tells under the same names.
_INSTANCE = ("proxy_location", "http_options", "grpc_options")


class Changed(Config):
    """What may be changed in place. A block that is given replaces the one in force; others stay."""

    sampling: Sampling | None = None
    """Defaults for requests that do not say."""
    adapters: AdapterSources | None = None
    """Where LoRA adapters are, for a model that has ``lora``."""
    max_ongoing_requests: int | None = Field(None, ge=1)
    """Requests a replica works on at a time."""
    max_queued_requests: int | None = Field(None, ge=0)
    """Requests a replica holds beyond that, before it refuses with 429."""


def changed(details: dict[str, Any], model: str, wanted: Changed) -> dict[str, Any]:
    """The Serve config that ``details`` (``GET /api/serve/applications/``) describe, with ``wanted`` of ``model``.

    Raises:
        ValueError: Serve has no config of such a model.
    """
    applications = {
        name: copy.deepcopy(one["deployed_app_config"])
        for name, one in details["applications"].items()
        if one.get("deployed_app_config")
    }
    if model not in applications:
        raise ValueError(f"{model}: no model of this name is served")
    deployment = _server(applications[model]["deployments"])
    deployment |= _limits(wanted)
    deployment["user_config"] = (deployment.get("user_config") or {}) | _blocks(wanted)
    instance = {key: details[key] for key in _INSTANCE if details.get(key) is not None}
    return {**instance, "applications": list(applications.values())}


def is_in_force(details: dict[str, Any], model: str, wanted: Changed) -> bool:
    """Whether the replicas of ``model`` have what is ``wanted``."""
    server = _server(list(details["applications"][model]["deployments"].values()))
    asked = server["deployment_config"]
    return (
        server["status"] == "HEALTHY"
        and _contains(asked, _limits(wanted))
        and _contains(asked.get("user_config") or {}, _blocks(wanted))
    )


def _server(deployments: list[dict[str, Any]]) -> dict[str, Any]:
    """The deployment with the engine; the other one chooses replicas."""
    (server,) = (one for one in deployments if "VLLMServer:" in one["name"])
    return server


def _contains(whole: dict[str, Any], part: dict[str, Any]) -> bool:
    return whole | part == whole


def _limits(wanted: Changed) -> dict[str, Any]:
    """What are options of Serve's."""
    return wanted.model_dump(exclude_none=True, include={"max_ongoing_requests", "max_queued_requests"})


def _blocks(wanted: Changed) -> dict[str, Any]:
    """What goes into the ``user_config``."""
    return wanted.model_dump(by_alias=True, exclude_none=True, exclude_unset=True, include={"sampling", "adapters"})
