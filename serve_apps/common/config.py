"""The base of every application's arguments.

Arguments are written in camelCase in values and in ``serveConfigV2`` and read as snake_case attributes here, so
one pydantic model checks the app's input and generates the chart's schema. Every model is closed and frozen: a
misspelt key is an error with its path, and nothing changes after it was read.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


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
