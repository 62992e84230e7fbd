"""_fit.tpl: whether weights and KV cache fit, reckoned as published sizes say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.render import CHART, VALUES, RenderRefused, notes, of_kind, render_chart

#: Bytes of weights in 16 bits: `total_size` of model.safetensors.index.json on the Hub.
PUBLISHED = {
    "Qwen2.5-7B-Instruct": 15_231_233_024,
    "Qwen2.5-14B-Instruct": 29_540_067_328,
    "Qwen2.5-32B-Instruct": 65_527_752_704,
    "Qwen2.5-72B-Instruct": 145_412_407_296,
    "Qwen3-8B": 16_381_470_720,
    "Qwen3-32B": 65_524_246_528,
    "Llama-3.1-8B-Instruct": 16_060_522_496,
    "Llama-3.3-70B-Instruct": 141_107_412_992,
    "Llama-3.1-405B-Instruct": 811_706_777_600,
    "Qwen3-235B-A22B-Instruct-2507": 470_187_269_120,
}
#: GB of weights of fewer bits, whose embeddings keep 16. That of Qwen2.5-72B-Instruct-AWQ was looked up on the Hub; the
#: others were not, and only check the arithmetic.
QUANTIZED = {
    "Qwen2.5-7B-Instruct-AWQ": 5.57,
    "Qwen2.5-32B-Instruct-AWQ": 19.33,
    "Qwen2.5-72B-Instruct-AWQ": 41.57,
    "Qwen3-8B-AWQ": 6.10,
    "Qwen3-8B-FP8": 9.44,
    "Qwen3-32B-FP8": 34.3,
    "Llama-3.3-70B-Instruct-FP8-dynamic": 72.7,
    "Qwen3-235B-A22B-Instruct-2507-FP8": 236.4,
}
#: A 70B model in its own words.
SIZE = {"parameters": 70.554, "layers": 80, "kvHeads": 8, "headDim": 128}
TEMPLATE = (CHART / "templates" / "_fit.tpl").read_text()


def told(
    count: int = 4, size: dict[str, Any] | None = None, *, entry: dict[str, Any] | None = None, **engine: Any
) -> str:
    """What the notes say of a model on L40S GPUs; empty if nothing."""
    model: dict[str, Any] = {
        "source": "s3://models/ours",
        "accelerator": {"type": "L40S", "count": count},
        "engine": engine,
        "size": SIZE if size is None else size,
        **(entry or {}),
    }
    return said(notes({"models": {"chat": model}}))


def said(text: str) -> str:
    found = re.search(r"^    (\S+ GB of weights .*)$", text, re.MULTILINE)
    return found[1] if found else ""


def test_the_sizes_that_are_known_are_those_published() -> None:
    known = yaml.safe_load(re.findall(r'"llm-serving.modelSizes" -\}\}\n(.*?)\{\{- end', TEMPLATE, re.DOTALL)[0])
    assert {name: round(size["parameters"] * 2, 1) for name, size in known.items()} == {
        name: round(size / 1e9, 1) for name, size in PUBLISHED.items()
    }


@pytest.mark.parametrize("source", ["oci://registry/qwen3-8b-fp8:1", "oci://registry/models:1#chat/Qwen3-8B-FP8"])
def test_a_model_in_an_image_is_known_by_its_name(source: str) -> None:
    entry = {"source": source, "accelerator": {"type": "L4"}, "runtime": "standalone"}
    assert said(notes({"models": {"chat": entry}})).startswith("9.4 GB of weights and room for")


@pytest.mark.parametrize(
    ("preset", "models"),
    [
        ("large-model-tp4", [("Llama-3.3-70B-Instruct", 80 * 8, 4 * (48 * 0.9 - 1.5), 16384)]),
        ("large-model-p4d", [("Llama-3.3-70B-Instruct", 80 * 8, 8 * (40 * 0.9 - 1.5), 32768)]),
        (
            "multi-model",
            [
                ("Qwen2.5-7B-Instruct", 28 * 4, 48 * 0.9 - 1.5, 16384),
                ("Qwen2.5-32B-Instruct", 64 * 8, 2 * (48 * 0.9 - 1.5), 16384),
            ],
        ),
        ("multi-lora", [("Qwen2.5-7B-Instruct", 28 * 4, 24 * 0.9 - 1.5, 8192)]),
    ],
)
def test_a_presets_room_is_what_published_sizes_leave(preset: str, models: list[tuple[str, int, float, int]]) -> None:
    lines = re.findall(
        r"^    (\S+) GB of weights and room for (\d+) tokens .*: (\S+) requests of (\d+) tokens",
        notes(files=[VALUES / f"{preset}.yaml"]),
        re.MULTILINE,
    )
    for (name, heads, have, context), line in zip(models, lines, strict=True):
        tokens = (have * 1e9 - PUBLISHED[name]) / (2 * heads * 128 * 2)
        assert float(line[0]) == pytest.approx(PUBLISHED[name] / 1e9, abs=0.1)
        assert int(line[1]) == pytest.approx(tokens, rel=0.01)
        assert float(line[2]) == pytest.approx(tokens / context, rel=0.02)
        assert int(line[3]) == context


@pytest.mark.parametrize(
    ("preset", "gb", "token_bytes", "have"),
    [
        ("large-model-awq", 4.203 + 68.453 * 0.52, 2 * 80 * 8 * 128, 2 * (48 * 0.9 - 1.5)),
        (
            "large-model-prefill",
            QUANTIZED["Llama-3.3-70B-Instruct-FP8-dynamic"],
            2 * 80 * 8 * 128 * 2,
            4 * (40 * 0.9 - 1.5),
        ),
        # All layers in fp8, embeddings (128,256 x 16,384, twice) in 16 bits; one of 16 GPUs has one of 16 parts.
        ("large-model-405b", 405.853 + 4.203, 2 * 126 * 8 * 128 * 2, 16 * (40 * 0.9 - 1.5)),
        # One rank: half of 94 x 128 experts of 3 x 1,536 x 4,096, and all the rest.
        (
            "large-model-moe",
            QUANTIZED["Qwen3-235B-A22B-Instruct-2507-FP8"] - 94 * 128 * 3 * 1536 * 4096 / 2e9,
            2 * 94 * 4 * 128 * 2,
            4 * (40 * 0.9 - 1.5),
        ),
    ],
)
def test_a_presets_room_is_what_weights_of_fewer_bits_leave(
    preset: str, gb: float, token_bytes: int, have: float
) -> None:
    found = re.match(r"(\S+) GB of weights and room for (\d+) tokens", said(notes(files=[VALUES / f"{preset}.yaml"])))
    assert found
    assert float(found[1]) == pytest.approx(gb, abs=0.1)
    assert int(found[2]) == pytest.approx((have - gb) * 1e9 / token_bytes, rel=0.01)


@pytest.mark.parametrize("preset", [file.stem for file in VALUES.glob("large-model-*.yaml")])
def test_a_preset_says_what_is_reckoned(preset: str) -> None:
    file: Path = VALUES / f"{preset}.yaml"
    tokens = re.search(r"room for (\d+) tokens", said(notes(files=[file])))
    assert tokens
    told = f"about {round(int(tokens[1]), -3) // 1000}k tokens of KV cache"
    assert told in re.sub(r"\n# +", " ", file.read_text())


def test_a_model_is_told_with_its_context_and_its_requests_at_a_time() -> None:
    assert told(max_model_len=16384, max_num_seqs=16) == (
        "141.1 GB of weights and room for 78405 tokens of KV cache (25.7 GB) in 4 x L40S: 4.8 requests of 16384 tokens "
        "at a time, or 16 of 4900"
    )
    assert told().endswith("in 4 x L40S")


@pytest.mark.parametrize(
    ("engine", "gb", "tokens"),
    [
        ({}, 141.1, 78_405),
        ({"quantization": "fp8"}, 70.6, 293_719),
        ({"quantization": "awq_marlin"}, 39.5, 388_457),
        ({"kv_cache_dtype": "fp8"}, 141.1, 156_811),
        ({"gpu_memory_utilization": 0.95}, 141.1, 107_702),
    ],
)
def test_fewer_bits_and_more_of_the_gpu_leave_more_room(engine: dict[str, Any], gb: float, tokens: int) -> None:
    assert told(**engine).startswith(f"{gb} GB of weights and room for {tokens} tokens")


def test_stages_on_several_nodes_share_weights_and_layers() -> None:
    assert told(entry={"nodes": 2}).startswith("141.1 GB of weights and room for 587")
    assert told(entry={"nodes": 2}).endswith("(192.5 GB) in 4 x L40S on each of 2 nodes")
    # 81 layers are 41 in the larger stage, which is full when the other is not.
    odd, even = (
        int(re.findall(r"for (\d+) tokens", told(size={**SIZE, "layers": layers}, entry={"nodes": 2}))[0])
        for layers in (81, 82)
    )
    assert odd == even


def test_a_rank_has_its_share_of_the_experts_and_all_the_rest() -> None:
    size = {"parameters": 60, "experts": 40, "layers": 32, "kvHeads": 4, "headDim": 128}
    ranks = told(2, size, entry={"parallelism": {"data": 2, "experts": True}}, quantization="fp8")
    assert ranks.startswith("40.0 GB of weights")
    assert ranks.endswith("in 2 x L40S, in each of 2 ranks")
    assert told(2, size, quantization="fp8").startswith("60.0 GB of weights")


def test_the_405b_preset_fits_into_the_two_nodes_it_names_and_not_into_one() -> None:
    preset = VALUES / "large-model-405b.yaml"
    found = re.fullmatch(
        r"410.1 GB of weights and room for (\d+) tokens .* in 8 x A100-40G on each of 2 nodes: .*",
        said(notes(files=[preset])),
    )
    assert found
    with pytest.raises(
        RenderRefused, match=r"410\.1 GB of weights .* do not fit into 8 x A100-40G, .* set count to 12 or more"
    ):
        notes({"models": {"chat": {"nodes": 1}}}, files=[preset])


def test_a_head_is_not_split_over_gpus() -> None:
    few = {**SIZE, "parameters": 7, "kvHeads": 2}
    one, two, four = (int(re.findall(r"for (\d+) tokens", told(count, few))[0]) for count in (1, 2, 4))
    assert two > 2 * one
    # Twice the memory, each half of which holds every second head once more.
    assert four == pytest.approx(two * (4 * 41.7 - 14) / (2 * 41.7 - 14) / 2, rel=0.01)


@pytest.mark.parametrize(
    "model",
    [
        {"source": "s3://models/ours", "accelerator": {"type": "L40S"}},
        {"source": "s3://models/Qwen2.5-7B-Instruct", "accelerator": {"type": "cpu"}},
    ],
)
def test_nothing_is_reckoned_of_what_is_not_known(model: dict[str, Any]) -> None:
    values = {"models": {"chat": model}, "workerGroups": {"cpu-models": {"enabled": True}}}
    assert said(notes(values)) == ""


def test_weights_of_fewer_bits_keep_embeddings_in_16() -> None:
    accelerator = {"type": "H100", "count": 8}
    models = {
        f"chat-{number}": {"source": f"s3://models/{name}", "accelerator": accelerator}
        for number, name in enumerate(QUANTIZED)
    }
    groups = {"h100-x8": {"maxReplicas": len(models)}}
    found = re.findall(r"(?m)^    (\S+) GB of weights", notes({"models": models, "workerGroups": groups}))
    assert [float(gb) for gb in found] == pytest.approx(list(QUANTIZED.values()), rel=0.01)


def test_what_keeps_its_bits_can_be_said() -> None:
    kept = {**SIZE, "embeddings": 10}
    assert told(size=kept, quantization="fp8").startswith("80.6 GB")
    assert told(size=kept).startswith("141.1 GB")


def test_a_known_model_is_known_wherever_it_lies() -> None:
    for source in ("s3://models/Qwen2.5-7B-Instruct", "hf://Qwen/Qwen2.5-7B-Instruct@main"):
        assert said(notes({"models": {"chat": {"source": source, "accelerator": {"type": "L4"}}}})).startswith(
            "15.2 GB"
        )


#: Weights in GB, by what a source and engine.quantization say.
WEIGHTS = {
    ("hf://org/Chat-8B@b968826d", None): 16,
    ("hf://Qwen/Qwen2.5-7B-Instruct", None): 15.232,  # of its size, not of its name
    ("s3://models/chat-1.7B/v2", None): 3.4,
    ("hf://org/Chat-30B-A3B", None): 60,
    ("hf://org/Chat-8x7B-Instruct-v0.1", None): 112,
    ("hf://org/Chat-405B-FP8", None): 405,
    ("hf://org/Chat-70B-AWQ", None): 39.2,
    ("hf://org/Chat-70B", "fp8"): 70,
    ("hf://org/Chat-70B", None): 140,
    ("hf://BAAI/bge-m3@5617a9f6", None): 2.3,
}


def test_a_plan_has_the_weights_of_a_known_size_or_of_the_parameters_in_the_name() -> None:
    told = {f"chat-{number}": one for number, one in enumerate(WEIGHTS)}
    told |= {"unsaid": ("hf://org/minilm", None), "bits": ("hf://org/8bit-chat", None)}
    models = {
        name: {"source": source, "engine": {"quantization": quantization}, "accelerator": {"type": "H100", "count": 8}}
        for name, (source, quantization) in told.items()
    }
    gb = '{{ include "llm-serving.weightsGb" . | fromYaml | toJson | quote }}'
    asked = f"{{apiVersion: v1, kind: ConfigMap, metadata: {{name: gb}}, data: {{gb: {gb}}}}}"
    groups = {"h100-x8": {"maxReplicas": len(models)}}
    objects = render_chart({"models": models, "workerGroups": groups, "extraObjects": [asked]})
    found = json.loads(of_kind(objects, "ConfigMap")["gb"]["data"]["gb"])
    assert {told[name]: size for name, size in found.items()} == pytest.approx(WEIGHTS)
