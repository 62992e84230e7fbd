import re
from typing import Any

import pytest
from pydantic import ValidationError

from serve_apps.llm.config import SOURCE_PATTERN, EngineArgs, LLMArgs, LLMSettings


def llm_args(**changes: Any) -> dict[str, Any]:
    """The arguments of a small model, with ``changes``."""
    return {
        "name": "chat",
        "source": "hf://org/name",
        "accelerator": {"type": "L4"},
        "placement": {"bundles": [{"CPU": 1, "GPU": 1}]},
    } | changes


def test_the_arguments_of_a_model_are_read() -> None:
    args = LLMArgs.model_validate(llm_args())
    assert (args.name, args.task, args.accelerator.count) == ("chat", "generate", 1)


def test_a_misspelt_key_is_refused_with_its_path() -> None:
    with pytest.raises(ValidationError, match=r"engine\.max_modellen"):
        LLMArgs.model_validate(llm_args(engine={"max_modellen": 4096}))


def test_an_unknown_accelerator_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="'L4', 'L40S'"):
        LLMArgs.model_validate(llm_args(accelerator={"type": "L40"}))


def test_every_gpu_needs_its_bundle() -> None:
    with pytest.raises(ValidationError, match=r"1 for accelerator\.count 2 on 1 nodes; one bundle per GPU"):
        LLMArgs.model_validate(llm_args(accelerator={"type": "L4", "count": 2}))


def test_a_bundle_for_every_gpu_is_accepted() -> None:
    bundles = [{"CPU": 1, "GPU": 1}] * 2
    args = LLMArgs.model_validate(llm_args(accelerator={"type": "L4", "count": 2}, placement={"bundles": bundles}))
    assert len(args.placement.bundles) == 2


def test_a_replica_of_several_nodes_has_the_bundles_of_all() -> None:
    accelerator = {"type": "H100", "count": 2}
    with pytest.raises(ValidationError, match=r"2 for accelerator\.count 2 on 2 nodes; one bundle per GPU"):
        LLMArgs.model_validate(llm_args(accelerator=accelerator, nodes=2, placement={"bundles": [{"GPU": 1}] * 2}))
    args = llm_args(accelerator=accelerator, nodes=2, placement={"bundles": [{"GPU": 1}] * 4})
    assert LLMArgs.model_validate(args).nodes == 2


@pytest.mark.parametrize("name", ["Chat", "chat:v2", "a" * 48, "-chat"])
def test_a_name_that_is_no_dns_label_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        LLMArgs.model_validate(llm_args(name=name))


def test_arguments_nobody_may_set_say_what_to_set_instead() -> None:
    with pytest.raises(ValidationError, match=r"extra\.tensor_parallel_size: not set here; set accelerator\.count"):
        EngineArgs.model_validate({"extra": {"tensor_parallel_size": 2}})


def test_any_other_argument_passes_through() -> None:
    args = EngineArgs.model_validate({"max_model_len": 4096, "extra": {"swap_space": 4}})
    assert args.kwargs() == {"max_model_len": 4096, "swap_space": 4}


def test_an_argument_in_both_places_is_refused() -> None:
    with pytest.raises(ValueError, match=r"engine\.extra\.max_model_len: also set as engine\.max_model_len"):
        EngineArgs.model_validate({"max_model_len": 4096, "extra": {"max_model_len": 2048}}).kwargs()


def test_the_hosts_memory_holds_at_least_a_batch_of_adapters() -> None:
    with pytest.raises(ValidationError, match=r"maxCpuLoras: below maxLoras \(4\), got 2; set more"):
        LLMArgs.model_validate(llm_args(lora={"maxCpuLoras": 2}))
    assert LLMArgs.model_validate(llm_args(lora={"maxCpuLoras": 4})).lora is not None


@pytest.mark.parametrize("name", ["../sql", "/sql", ".sql", "a/b", "", "a" * 64, "sql:x"])
def test_a_path_is_no_name_of_an_adapter(name: str) -> None:
    with pytest.raises(ValidationError, match="named"):
        LLMSettings.model_validate({"adapters": {"named": {name: "pvc://claim/sql"}}})


@pytest.mark.parametrize(
    ("image", "is_one"),
    [
        ("registry/chat:1", True),
        ("registry:5000/ml/chat:v1.2_a-b", True),
        (f"registry/chat@sha256:{'a' * 64}", True),
        (f"registry/chat:1@sha256:{'a' * 64}", True),
        ("registry/chat:1#models/8b", True),
        ("registry:5000/chat", False),
        ("registry/chat:latest#/etc", False),
        ("registry/chat@sha256:abc", False),
        ("chat:1", False),
        ("registry/a chat:1", False),
    ],
)
def test_an_image_is_named_by_tag_or_digest(image: str, is_one: bool) -> None:
    assert bool(re.search(SOURCE_PATTERN, f"oci://{image}")) is is_one


def test_adapters_are_told_by_name_and_by_directory() -> None:
    adapters = {"directory": "s3://bucket/adapters", "named": {"sql": "pvc://claim/sql"}}
    assert LLMSettings.model_validate({"adapters": adapters}).adapters.named == {"sql": "pvc://claim/sql"}
