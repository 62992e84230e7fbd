import re

import pytest

from serve_apps.llm.sources import Weights, image_folder, resolve


def test_a_hub_source_keeps_its_revision() -> None:
    assert resolve("hf://org/name@abc123") == Weights("org/name", "abc123")


def test_a_hub_source_without_revision_has_none() -> None:
    assert resolve("hf://org/name") == Weights("org/name")


@pytest.mark.parametrize("source", ["s3://bucket/models/a", "gs://bucket/models/a"])
def test_a_bucket_source_stays_a_uri(source: str) -> None:
    assert resolve(source) == Weights(source)


def test_a_claim_is_a_folder_below_the_models_root() -> None:
    assert resolve("pvc://weights/llama/8b", models_root="/mnt/models") == Weights("/mnt/models/weights/llama/8b")


def test_the_environment_names_another_models_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_SERVING_MODELS", "/elsewhere")
    assert resolve("pvc://weights/llama").location == "/elsewhere/weights/llama"


def test_an_image_is_a_folder_below_the_models_root() -> None:
    image = "registry.example.com:5000/ml/qwen3-8b:1"
    folder = f"/mnt/models/{image_folder(image)}"
    assert resolve(f"oci://{image}", models_root="/mnt/models") == Weights(folder)
    assert resolve(f"oci://{image}#chat/8b", models_root="/mnt/models") == Weights(f"{folder}/chat/8b")


def test_each_image_has_a_folder_of_its_own_that_kubernetes_takes() -> None:
    folders = {image_folder(f"registry/ml/chat{tag}") for tag in (":1", ":2", ":1-2", "-1:2", "@sha256:" + "0" * 64)}
    assert len(folders) == 5
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]{,61}[a-z0-9])?", folder) for folder in folders)


@pytest.mark.parametrize("path", ["../other", "/etc", "a/../.."])
def test_a_path_may_not_leave_its_image(path: str) -> None:
    with pytest.raises(ValueError, match="leaves its image"):
        resolve(f"oci://registry/ml/chat:1#{path}")


@pytest.mark.parametrize("source", ["pvc://weights/../../etc", "pvc:///etc/passwd"])
def test_a_path_may_not_leave_its_claim(source: str) -> None:
    with pytest.raises(ValueError, match="leaves its claim"):
        resolve(source)


def test_dots_inside_a_name_do_not_leave_the_claim() -> None:
    assert resolve("pvc://weights/llama-3..1", models_root="/m").location == "/m/weights/llama-3..1"


def test_an_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"one of: hf://, s3://, gs://, pvc://, oci://"):
        resolve("ftp://host/model")
