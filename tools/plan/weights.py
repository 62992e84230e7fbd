"""How large a model is, from what its values say. Pure."""

import re
from collections.abc import Mapping
from typing import Any

#: Bytes of a parameter, by what a name or engine.quantization says of it; what says nothing is bf16.
BYTES = {
    **dict.fromkeys(("fp8", "int8", "w8a8"), 1.0),
    **dict.fromkeys(("awq", "gptq", "int4", "w4a16", "nvfp4", "mxfp4"), 0.6),
}
BF16_BYTES = 2.0

_BILLIONS = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)b(?![a-z0-9])")


def weights_gb(source: str, engine: Mapping[str, Any], known: Mapping[str, float]) -> float | None:
    """GB of the weights at ``source``: as ``known`` for its name, else by the parameters in it; None if neither says.

    A mixture of experts counts whole: ``30B-A3B`` is 30 billion, ``8x7B`` 56.
    """
    name = re.sub(r"@[^#]*", "", source.partition("://")[2])
    if name in known:
        return known[name]
    sizes = [float(size) * int(experts or 1) for experts, size in _BILLIONS.findall(name.lower())]
    if not sizes:
        return None
    told = f"{name} {engine.get('quantization') or ''}".lower()
    size = next((size for word, size in BYTES.items() if word in told), BF16_BYTES)
    return max(sizes) * size
