"""Kubernetes' quantities, as plain numbers. Pure."""

import re
from collections.abc import Mapping
from typing import Any

GI = 2.0**30
_UNITS = {
    **{unit: 1000.0**power for power, unit in enumerate(["n", "u", "m", "", *"kMGTPE"], start=-3)},
    **{f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", start=1)},
}

#: What is asked for or there, by Kubernetes' name of the resource.
Amounts = Mapping[str, float]


def quantity(written: str | float) -> float:
    """What ``4``, ``"500m"`` or ``"16Gi"`` is: cores, bytes, pieces.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([numkMGTPE]?|[KMGTPE]i)", str(written))
    if not found:
        raise ValueError(f"not a quantity: {written!r}")
    return float(found[1]) * _UNITS[found[2]]


def amounts(block: Mapping[str, Any] | None) -> dict[str, float]:
    """A block of quantities, such as a container's requests."""
    return {resource: quantity(written) for resource, written in (block or {}).items()}


def spelled(resource: str, amount: float) -> str:
    """An amount as people write it: bytes in Gi."""
    in_bytes = "memory" in resource or ("storage" in resource and not resource.endswith("claims"))
    return f"{amount / GI:.4g}Gi" if in_bytes else f"{amount:.4g}"
