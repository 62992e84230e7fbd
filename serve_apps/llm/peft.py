"""What PEFT writes for a LoRA adapter, and whether a model can carry it.

vLLM would say only that an adapter "could not be loaded"; one that was made for a smaller base it would even load, into
a corner of the layers. So all that can be known before is looked at here, in files and plain data.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

#: The format's own limit for its header, in bytes.
_MAX_HEADER_BYTES = 100_000_000
#: A matrix of a language model's layer: ``…layers.3.self_attn.q_proj.lora_A.weight``. Vision towers have layers, too.
_MATRIX = re.compile(
    r"base_model\.model\.(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.(\d+)\."
    r"(?:self_attn|mlp)\.(\w+)\.lora_([AB])(?:\.\w+)?\.weight"
)
#: What projections read (A) and write (B): what goes from layer to layer, or what is inside the feed-forward layers.
#: Attention's own sizes are left out: architectures differ in what the matrices of one name hold.
_HIDDEN = frozenset({"q_proj A", "k_proj A", "v_proj A", "gate_proj A", "up_proj A", "o_proj B", "down_proj B"})
_INTERMEDIATE = frozenset({"gate_proj B", "up_proj B", "down_proj A"})


class Unfit(Exception):
    """The adapter cannot be used; the message says what is wrong with it, as the end of a sentence."""


@dataclass(frozen=True)
class Base:
    """What a model takes."""

    max_rank: int
    """The largest rank."""
    hidden_size: int
    """Features that go from layer to layer."""
    layers: int
    """How many layers there are."""
    intermediate_size: int | None = None
    """Features inside the feed-forward layers, where all have as many."""


def check(folder: Path, base: Base) -> None:
    """Look whether the adapter in ``folder`` fits ``base``.

    Raises:
        Unfit: it does not, or it is no adapter that vLLM can load.
    """
    config = _config(folder / CONFIG)
    _check_kind(config)
    rank = config.get("r")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise Unfit(f"its rank ({CONFIG}: r) is {json.dumps(rank)}, not a positive number")
    if rank > base.max_rank:
        raise Unfit(f"its rank is {rank}, and this model takes {base.max_rank} at most (lora.maxRank)")
    _check_shapes(_shapes(folder / WEIGHTS), base, config.get("base_model_name_or_path"))


def _config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_bytes())
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise Unfit(f"its {CONFIG} is not a JSON object")
    return config


def _check_kind(config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise Unfit(f"it is of type {json.dumps(config.get('peft_type'))}, not LORA")
    for key, kind in (("use_dora", "DoRA"), ("modules_to_save", "whole modules beside its matrices")):
        if config.get(key):
            raise Unfit(f"it has {kind} ({CONFIG}: {key}), which vLLM does not load")
    if config.get("bias", "none") != "none":
        raise Unfit(f"it has biases ({CONFIG}: bias), which vLLM does not load")


def _shapes(file: Path) -> dict[str, list[int]]:
    """The shape of each tensor, from the header (https://huggingface.co/docs/safetensors, "Format")."""
    size = file.stat().st_size
    with file.open("rb") as weights:
        length = int.from_bytes(weights.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            raise Unfit(f"its {WEIGHTS} is cut short, or no such file")
        try:
            header = json.loads(weights.read(length))
            header.pop("__metadata__", None)
            shapes = {name: tensor["shape"] for name, tensor in header.items()}
            end = max(tensor["data_offsets"][1] for tensor in header.values())
        except (ValueError, TypeError, LookupError, AttributeError):
            raise Unfit(f"its {WEIGHTS} has no header that can be read") from None
    if size != 8 + length + end:
        raise Unfit(f"its {WEIGHTS} is cut short: {size} bytes of {8 + length + end}")
    return shapes


def _check_shapes(shapes: dict[str, list[int]], base: Base, made_for: Any) -> None:
    for name, shape in shapes.items():
        if (matrix := _MATRIX.fullmatch(name)) is None or len(shape) != 2:
            continue
        layer, projection, side = int(matrix[1]), matrix[2], matrix[3]
        if layer >= base.layers:
            found, wanted = f"it has a layer {layer}", f"the layers of this model are 0 to {base.layers - 1}"
            raise Unfit(f"it was made for another base, {json.dumps(made_for)}: {found}, and {wanted}")
        # What the configuration says of the rank is not all: `rank_pattern` has more for some matrices.
        if (rank := shape[0] if side == "A" else shape[1]) > base.max_rank:
            found = f"its {projection} in layer {layer} has rank {rank}"
            raise Unfit(f"{found}, and this model takes {base.max_rank} at most (lora.maxRank)")
        key = f"{projection} {side}"
        size = base.hidden_size if key in _HIDDEN else base.intermediate_size if key in _INTERMEDIATE else None
        features = shape[1] if side == "A" else shape[0]
        if size is not None and features != size:
            found = f"its {projection} {'reads' if side == 'A' else 'writes'} {features} features"
            raise Unfit(f"it was made for another base, {json.dumps(made_for)}: {found}, and this model has {size}")
