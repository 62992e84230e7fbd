"""docs/large-models.md: its examples are rendered, and vLLM's own parser reads its arguments."""

import json
from dataclasses import fields
from typing import Any, get_args

import pytest
import yaml
from vllm.config import SpeculativeConfig
from vllm.config.speculative import SpeculativeMethod
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
from vllm.utils.argparse_utils import FlexibleArgumentParser

from serve_apps.llm.config import EngineArgs
from tests.chart.render import VALUES, application, render_chart
from tests.docs.markdown import REPOSITORY, blocks

TEXT = (REPOSITORY / "docs" / "large-models.md").read_text()
BLOCKS: list[dict[str, Any]] = [yaml.safe_load(block) for block in blocks(TEXT, "yaml")]
EXAMPLES = [block for block in BLOCKS if block.keys() & {"models", "workerGroups"}]
ENGINES = [block for block in BLOCKS if block not in EXAMPLES]
PRESETS: dict[str, Any] = {
    file.stem: yaml.safe_load(file.read_text()).get("models", {}) for file in VALUES.glob("*.yaml")
}
TUNED: list[dict[str, Any]] = [
    model["engine"]
    for preset in ("large-model-awq", "large-model-prefill", "large-model-p4d", "multi-model")
    for model in PRESETS[preset].values()
    if "engine" in model
]
#: What there has to be an example of.
SUBJECTS = {
    *("quantization", "kv_cache_dtype", "speculative_config", "enable_prefix_caching", "kv_offloading_size"),
    *("enable_chunked_prefill", "enable_sleep_mode"),
}


def parsed(engine: dict[str, Any]) -> AsyncEngineArgs:
    """``engine`` as vLLM reads it.

    Raises:
        SystemExit: vLLM knows no such argument, or not such a value.
    """
    arguments = EngineArgs.model_validate(engine).kwargs()
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    flags = [_flag(key, value) for key, value in arguments.items()]
    return AsyncEngineArgs.from_cli_args(parser.parse_args(flags))


def _flag(key: str, value: Any) -> str:
    flag = key.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag}={value if isinstance(value, str) else json.dumps(value)}"


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_an_example_can_be_installed(example: dict[str, Any]) -> None:
    assert render_chart(example, files=[VALUES / "large-model-tp4.yaml"])


@pytest.mark.parametrize("preset", ["large-model-405b", "large-model-moe", "large-model-prefill"])
def test_a_presets_split_is_the_documents(preset: str) -> None:
    told = [example["models"]["chat"] for example in EXAMPLES if "models" in example]
    assert any(PRESETS[preset]["chat"].items() >= one.items() for one in told)


@pytest.mark.parametrize("engine", [*ENGINES, *TUNED], ids=str)
def test_vllm_takes_an_argument_as_it_is_written(engine: dict[str, Any]) -> None:
    found = parsed(engine)
    for key, value in EngineArgs.model_validate(engine).kwargs().items():
        assert getattr(found, key) == value
    assert found.quantization in (None, *QUANTIZATION_METHODS)
    if speculation := found.speculative_config:
        assert speculation.keys() <= {field.name for field in fields(SpeculativeConfig)}
        assert speculation.get("method", "ngram") in get_args(SpeculativeMethod)


def test_vllm_refuses_what_it_does_not_know() -> None:
    for engine in ({"extra": {"kv_offload_size": 64}}, {"extra": {"kv_offloading_backend": "disk"}}):
        with pytest.raises(SystemExit):
            parsed(engine)


@pytest.mark.parametrize("engines", [ENGINES, TUNED], ids=["document", "presets"])
def test_every_subject_has_an_example(engines: list[dict[str, Any]]) -> None:
    assert set().union(*(EngineArgs.model_validate(engine).kwargs() for engine in engines)) >= SUBJECTS


def test_there_is_a_preset_of_each_quantization() -> None:
    assert {engine.get("quantization") for engine in TUNED} >= {"fp8", "awq_marlin"}


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_helm_takes_it_too(engine: dict[str, Any]) -> None:
    objects = render_chart({"models": {"chat": {"engine": engine}}}, files=[VALUES / "chat-32b.yaml"])
    assert application(objects, "chat")["args"]["engine"].items() >= engine.items()
