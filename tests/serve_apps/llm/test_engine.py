from pathlib import Path
from typing import Any, get_args

import pytest
from ray.llm._internal.common.utils.download_utils import download_model_files
from ray.serve.llm import LLMConfig
from vllm.config.lora import MaxLoRARanks

from serve_apps.llm.config import LLMArgs, LoraSlots
from serve_apps.llm.engine import deployment_config, engine_kwargs, llm_config, prefill_config
from tests.serve_apps.bucket import Bucket
from tests.serve_apps.gateway.servers import serving
from tests.serve_apps.llm.test_config import llm_args


def parsed(**changes: Any) -> LLMArgs:
    return LLMArgs.model_validate(llm_args(**changes))


def test_more_than_one_gpu_is_tensor_parallel() -> None:
    args = parsed(accelerator={"type": "L40S", "count": 4}, placement={"bundles": [{"CPU": 1, "GPU": 1}] * 4})
    config = llm_config(args)
    assert config["engine_kwargs"]["tensor_parallel_size"] == 4
    assert config["placement_group_config"] == {"strategy": "STRICT_PACK", "bundles": [{"CPU": 1, "GPU": 1}] * 4}


def test_more_than_one_node_is_pipeline_parallel() -> None:
    placement = {"strategy": "PACK", "bundles": [{"CPU": 1, "GPU": 1}] * 16}
    config = llm_config(parsed(accelerator={"type": "H100", "count": 8}, nodes=2, placement=placement))
    assert config["engine_kwargs"].items() >= {"tensor_parallel_size": 8, "pipeline_parallel_size": 2}.items()
    engine = LLMConfig(**config).get_engine_config()
    assert (engine.num_devices, engine.placement_strategy) == (16, "PACK")
    assert engine.placement_bundles == placement["bundles"]
    assert "pipeline_parallel_size" not in engine_kwargs(parsed())


def test_ranks_and_experts_are_vllms_and_ranks_have_their_own_server() -> None:
    config = llm_config(parsed(parallelism={"data": 2, "experts": True}))
    assert config["engine_kwargs"].items() >= {"data_parallel_size": 2, "enable_expert_parallel": True}.items()
    assert config["server_cls"] == "serve_apps.llm.server:DataParallelVLLMServer"
    alone = llm_config(parsed(parallelism={"experts": True}))
    assert "data_parallel_size" not in alone["engine_kwargs"]
    assert alone["server_cls"] == "serve_apps.llm.server:VLLMServer"


def test_a_prompt_read_elsewhere_is_handed_over_by_nixl_unless_the_engine_says_otherwise() -> None:
    args = parsed(
        engine={"max_num_seqs": 64, "extra": {"seed": 7}},
        parallelism={"prefill": {"engine": {"max_num_seqs": 8, "extra": {"seed": 9}}}},
    )
    assert args.parallelism.prefill is not None
    answers, reads = llm_config(args), prefill_config(args, args.parallelism.prefill)
    assert answers["server_cls"] == "serve_apps.llm.server:DecodeVLLMServer"
    assert [one["engine_kwargs"]["max_num_seqs"] for one in (answers, reads)] == [64, 8]
    assert [one["engine_kwargs"]["seed"] for one in (answers, reads)] == [7, 9]
    for config in (answers, reads):
        assert config["engine_kwargs"]["kv_transfer_config"] == {"kv_connector": "NixlConnector", "kv_role": "kv_both"}
    assert answers["engine_kwargs"]["kv_transfer_config"] is not engine_kwargs(args)["kv_transfer_config"]
    lmcache = {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}
    told = parsed(engine={"extra": {"kv_transfer_config": lmcache}}, parallelism={"prefill": {}})
    assert engine_kwargs(told)["kv_transfer_config"] == lmcache
    assert "kv_transfer_config" not in engine_kwargs(parsed())


@pytest.mark.parametrize(
    ("task", "runner", "convert"), [("generate", None, None), ("embed", "pooling", "embed"), ("score", "pooling", None)]
)
def test_the_task_chooses_the_runner(task: str, runner: str | None, convert: str | None) -> None:
    kwargs = engine_kwargs(parsed(task=task))
    assert (kwargs.get("runner"), kwargs.get("convert")) == (runner, convert)


@pytest.mark.parametrize(
    ("source", "engine", "told"),
    [
        ("s3://models/chat", {}, "pyarrow-s3://models/chat"),
        ("s3://models/chat", {"load_format": "safetensors"}, "pyarrow-s3://models/chat"),
        ("s3://models/chat", {"load_format": "runai_streamer"}, "s3://models/chat"),
        ("gs://models/chat", {}, "gs://models/chat"),
        ("hf://org/chat", {"load_format": "runai_streamer"}, "org/chat"),
    ],
)
def test_a_bucket_is_streamed_by_vllm_or_downloaded_by_arrow(source: str, engine: dict[str, Any], told: str) -> None:
    config = LLMConfig(**llm_config(parsed(source=source, engine=engine)))
    assert config.model_loading_config.model_source == told


def test_ray_downloads_a_model_from_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what every image has; Ray's own choice, boto3, is not in the image for CPUs."""
    monkeypatch.setattr("ray.llm._internal.common.utils.cloud_filesystem.s3_filesystem.boto3", None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    files = {"chat/config.json": b"{}", "chat/model.safetensors": b"weights"}
    with serving(Bucket(files)) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        engine = LLMConfig(**llm_config(parsed(source="s3://bucket/chat"))).get_engine_config()
        folder = Path(download_model_files(engine.actual_hf_model_id, engine.mirror_config))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        "config.json": b"{}",
        "model.safetensors": b"weights",
    }


def test_a_pinned_revision_pins_the_tokenizer_too() -> None:
    kwargs = engine_kwargs(parsed(source="hf://org/name@abc"))
    assert (kwargs["revision"], kwargs["tokenizer_revision"]) == ("abc", "abc")


def test_an_unpinned_source_sets_no_revision() -> None:
    assert "revision" not in engine_kwargs(parsed())


def test_engine_arguments_are_passed_on() -> None:
    kwargs = engine_kwargs(parsed(engine={"max_model_len": 4096, "extra": {"seed": 7}}))
    assert (kwargs["max_model_len"], kwargs["seed"]) == (4096, 7)


def test_a_model_always_scales_and_refuses_within_bounds() -> None:
    options = deployment_config(parsed())
    assert options["max_ongoing_requests"] < 1e6
    assert options["max_queued_requests"] > 0
    assert options["autoscaling_config"]["target_ongoing_requests"] < options["max_ongoing_requests"]
    assert options["backpressure_config"]["status_code"] == 429


def test_the_worker_group_is_chosen_by_label() -> None:
    placement = {"bundles": [{"GPU": 1}], "labelSelector": {"llm-serving/accelerator": "L4-x1"}}
    options = deployment_config(parsed(placement=placement))
    assert options["placement_group_bundle_label_selector"] == [{"llm-serving/accelerator": "L4-x1"}]


def test_without_a_label_any_node_will_do() -> None:
    assert "placement_group_bundle_label_selector" not in deployment_config(parsed())


@pytest.mark.parametrize(("accelerator", "kind"), [("cpu", "cpu"), ("L4", "gpu")])
def test_the_engine_is_told_cpu_or_gpu(accelerator: str, kind: str) -> None:
    assert llm_config(parsed(accelerator={"type": accelerator}))["accelerator_config"] == {"kind": kind}


def test_a_model_with_adapters_has_room_for_them() -> None:
    kwargs = engine_kwargs(parsed(lora={"maxLoras": 2, "maxCpuLoras": 8, "maxRank": 32}))
    lora = {key: value for key, value in kwargs.items() if "lora" in key}
    assert lora == {"enable_lora": True, "max_loras": 2, "max_cpu_loras": 8, "max_lora_rank": 32}


def test_one_without_has_none() -> None:
    assert not any("lora" in key for key in engine_kwargs(parsed()))


def test_vllm_takes_the_ranks_that_we_take() -> None:
    assert get_args(LoraSlots.model_fields["max_rank"].annotation) == get_args(MaxLoRARanks)
