import pytest

from tools.plan.weights import weights_gb

KNOWN = {"BAAI/bge-m3": 2.3}


@pytest.mark.parametrize(
    ("source", "gb"),
    [
        ("hf://Qwen/Qwen3-8B@b968826d", 16),
        ("hf://Qwen/Qwen2.5-7B-Instruct", 14),
        ("s3://models/Llama-3.3-70B-Instruct", 140),
        ("pvc://weights/smollm2-135m-instruct-1.7B", 3.4),
        ("hf://Qwen/Qwen3-30B-A3B", 60),
        ("hf://mistralai/Mixtral-8x7B-Instruct-v0.1", 112),
        ("hf://org/Llama-3.1-405B-Instruct-FP8", 405),
        ("hf://org/Llama-3.3-70B-Instruct-AWQ", 42),
        ("hf://BAAI/bge-m3@5617a9f6", 2.3),
        ("hf://org/minilm", None),
        ("hf://org/8bit-chat", None),
        ("oci://registry:5000/ml/qwen3-8b:1", 16),
        ("oci://registry/models:1#Qwen3-8B", 16),
        ("oci://registry/minilm@sha256:0123456789ab8b#en", None),
    ],
)
def test_a_name_says_how_large_a_model_is(source: str, gb: float | None) -> None:
    assert weights_gb(source, {}, KNOWN) == (None if gb is None else pytest.approx(gb))


def test_quantization_in_the_values_counts_as_one_in_the_name() -> None:
    assert weights_gb("hf://org/Chat-70B", {"quantization": "fp8"}, {}) == 70
    assert weights_gb("hf://org/Chat-70B", {"quantization": None}, {}) == 140
