from pathlib import Path
from typing import Any

import pytest

from serve_apps.llm.peft import CONFIG, WEIGHTS, Base, Unfit, check
from tools.demo.adapters import write_adapter

BASE = Base(max_rank=8, hidden_size=16, layers=2, intermediate_size=32)
SMALL = {"seed": 1, "rank": 4, "hidden": 16, "intermediate": 32, "layers": 2}


def made(folder: Path, **changes: Any) -> Path:
    """A small adapter of two layers for a base of 16 features, with ``changes``."""
    write_adapter(folder, **(SMALL | changes))
    return folder


@pytest.mark.parametrize("changes", [{}, {"rank": 8}, {"layers": 1}])
def test_an_adapter_that_fits_is_taken(tmp_path: Path, changes: Any) -> None:
    check(made(tmp_path, **changes), BASE)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rank": 16}, "its rank is 16, and this model takes 8 at most (lora.maxRank)"),
        (
            {"rank": 16, "r": 4, "rank_pattern": {"down_proj": 16}},
            "its down_proj in layer 0 has rank 16, and this model takes 8 at most (lora.maxRank)",
        ),
        ({"r": 0}, "its rank (adapter_config.json: r) is 0, not a positive number"),
        ({"r": None}, "its rank (adapter_config.json: r) is null, not a positive number"),
        ({"peft_type": "IA3"}, 'it is of type "IA3", not LORA'),
        ({"use_dora": True}, "it has DoRA (adapter_config.json: use_dora), which vLLM does not load"),
        (
            {"modules_to_save": ["lm_head"]},
            "it has whole modules beside its matrices (adapter_config.json: modules_to_save), which vLLM does not load",
        ),
        ({"bias": "all"}, "it has biases (adapter_config.json: bias), which vLLM does not load"),
        (
            {"hidden": 24, "base_model_name_or_path": "org/large"},
            'it was made for another base, "org/large": its down_proj writes 24 features, and this model has 16',
        ),
        (
            {"intermediate": 64},
            'it was made for another base, "HuggingFaceTB/SmolLM2-135M-Instruct": its down_proj reads 64 features, and '
            "this model has 32",
        ),
        (
            {"layers": 3, "base_model_name_or_path": "org/deep"},
            'it was made for another base, "org/deep": it has a layer 2, and the layers of this model are 0 to 1',
        ),
    ],
)
def test_one_that_does_not_fit_is_refused_with_the_reason(tmp_path: Path, changes: Any, why: str) -> None:
    with pytest.raises(Unfit) as caught:
        check(made(tmp_path, **changes), BASE)
    assert str(caught.value) == why


@pytest.mark.parametrize("text", ["", "[]", "{", "\0"])
def test_a_configuration_that_is_none_is_said_to_be(tmp_path: Path, text: str) -> None:
    (made(tmp_path) / CONFIG).write_text(text)
    with pytest.raises(Unfit, match=r"^its adapter_config\.json is not a JSON object$"):
        check(tmp_path, BASE)


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_weights_that_are_cut_short_are_said_to_be(tmp_path: Path, length: int) -> None:
    file = made(tmp_path) / WEIGHTS
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(Unfit, match=r"^its adapter_model\.safetensors is cut short"):
        check(tmp_path, BASE)


@pytest.mark.parametrize("header", [b"{}", b"[]", b"nope", b'{"a":{}}', b'{"a":{"shape":[1],"data_offsets":[0]}}'])
def test_weights_of_another_format_are_said_to_be(tmp_path: Path, header: bytes) -> None:
    (made(tmp_path) / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(Unfit, match=r"^its adapter_model\.safetensors has no header that can be read$"):
        check(tmp_path, BASE)


def test_sizes_that_differ_from_layer_to_layer_are_left_to_vllm(tmp_path: Path) -> None:
    check(made(tmp_path, intermediate=64), Base(max_rank=8, hidden_size=16, layers=2, intermediate_size=None))


def test_what_is_no_layer_of_the_language_model_is_left_to_vllm(tmp_path: Path) -> None:
    made(tmp_path)
    text = (tmp_path / WEIGHTS).read_bytes()
    # The same number of bytes, so that nothing moves.
    (tmp_path / WEIGHTS).write_bytes(text.replace(b"base_model.model.model.layers.", b"base_model.vision_towe.layers."))
    check(tmp_path, Base(max_rank=8, hidden_size=99, layers=1))
