"""LoRA adapters that are made, not trained: they change what a model says, and not for the better."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from serve_apps.llm.peft import CONFIG, WEIGHTS

#: SmolLM2-135M's sizes.
HIDDEN, INTERMEDIATE, LAYERS = 576, 1536, 30


def write_adapter(
    folder: Path,
    *,
    seed: int,
    rank: int = 8,
    hidden: int = HIDDEN,
    intermediate: int = INTERMEDIATE,
    layers: int = LAYERS,
    **config: Any,
) -> None:
    """Write an adapter of the feed-forward layers as PEFT would, with random matrices.

    Args:
        folder: where; made unless it is there.
        seed: of the matrices.
        rank: of the matrices.
        hidden: features between the base's layers.
        intermediate: features inside its feed-forward layers.
        layers: how many there are.
        config: further keys of adapter_config.json, or others in place of the usual.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    sizes = {"gate_proj": (hidden, intermediate), "down_proj": (intermediate, hidden)}
    matrices: dict[str, np.ndarray[Any, Any]] = {}
    for layer in range(layers):
        for name, (read, written) in sizes.items():
            module = f"base_model.model.model.layers.{layer}.mlp.{name}"
            matrices[f"{module}.lora_A.weight"] = random.normal(0, read**-0.5, (rank, read)).astype(np.float32)
            matrices[f"{module}.lora_B.weight"] = random.normal(0, 0.2, (written, rank)).astype(np.float32)
    save_file(matrices, folder / WEIGHTS)
    usual = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": sorted(sizes),
        "bias": "none",
    }
    (folder / CONFIG).write_text(json.dumps(usual | config, indent=2))
