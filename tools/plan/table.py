"""The figures that a plan counts with (the chart's plan.yaml, which the notes of an install count with, too)."""

from pathlib import Path
from typing import Literal

import yaml

from serve_apps.common.config import Config
from tools.demo.rendered import CHART

FILE = CHART / "plan.yaml"
Stage = Literal["node", "image", "process", "weights", "compile", "graphs"]


class Instance(Config):
    """A kind of node."""

    gpu: str = ""
    gpus: int = 0
    cpu: float
    memory_gi: float
    network_gbit: float
    usd: float
    """Dollars an hour, on demand."""


class Reserved(Config):
    """What a node keeps for itself."""

    cpu: float
    memory_share: float


class Duration(Config):
    """One stage of a start; see plan.yaml."""

    by: str
    source: str
    cold_s: float = 0
    prepared_s: float = 0
    gb: float = 0
    cold_gb_per_s: float | dict[str, float] = 0
    prepared_gb_per_s: float = 0


class Table(Config):
    """All of it."""

    instances: dict[str, Instance]
    reserved: Reserved
    start: dict[Stage, Duration]


def read(file: Path = FILE) -> Table:
    """The table in ``file``.

    Raises:
        ValidationError: it has a key too many or too few.
    """
    return Table.model_validate(yaml.safe_load(file.read_text()))
