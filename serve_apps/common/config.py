"""The base of every application's arguments.

Arguments are written in camelCase in values and in ``serveConfigV2`` and read as snake_case attributes here, so
one pydantic model checks the app's input and generates the chart's schema. Every model is closed and frozen: a
misspelt key is an error with its path, and nothing changes after it was read.
"""

import logging
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

logger = logging.getLogger(__name__)


class Config(BaseModel):
    """A closed, frozen block of configuration with camelCase keys."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )


class UpstreamSpelling(BaseModel):
    """A closed, frozen block that keeps the spelling of the project it is passed to (Ray's, vLLM's)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


#: A model's or pipeline's name: a DNS label, so that it is also its Serve application, route and metric label.
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=47)]

#: A LoRA adapter's name, as a pattern. It may name a folder, so it can be no path.
ADAPTER_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}"
AdapterName = Annotated[str, Field(pattern=f"^{ADAPTER_NAME}$")]

Settings = TypeVar("Settings", bound=Config)


def accepted(kind: type[Settings], offered: dict[str, Any], in_force: Settings | None) -> Settings:
    """The settings a replica goes on with when Serve offers a new ``user_config``: these, if they are valid.

    If not, those in force stay and the log says why. An error would make Serve replace the replica by one that fails
    for the same reason, and a typo would become an outage.

    Raises:
        ValidationError: there are none in force yet; a replica must not start with settings nobody asked for.
    """
    try:
        return kind.model_validate(offered)
    except ValidationError as error:
        if in_force is None:
            raise
        logger.error("new settings are not valid; the old ones stay in force: %s", error)
        return in_force
