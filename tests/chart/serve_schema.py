"""What Ray's own schemas let pass: a key they do not know, at any depth, and an autoscaling block they never read."""

import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import DeploymentSchema, ServeDeploySchema


def unknown_keys(data: Any, model: type[BaseModel] = ServeDeploySchema, path: str = "") -> Iterator[str]:
    """The path of every key in ``data`` that ``model`` and the models below it do not have."""
    for key, value in data.items():
        where = f"{path}.{key}".lstrip(".")
        if key not in model.model_fields:
            yield where
            continue
        if model is DeploymentSchema and key == "autoscaling_config":
            yield from unknown_keys(value, AutoscalingConfig, where)
            continue
        for inner in _models(model.model_fields[key].annotation):
            for index, item in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(item, dict):
                    yield from unknown_keys(item, inner, f"{where}[{index}]" if isinstance(value, list) else where)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The pydantic models in a field's annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, list):
        for part in get_args(annotation):
            yield from _models(part)
