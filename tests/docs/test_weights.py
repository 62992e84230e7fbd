"""docs/weights.md: its examples are rendered, vLLM's parser reads their arguments, and its image is what it says."""

import re
from typing import Any

import pytest
import yaml

from tests.chart.render import application, render_chart
from tests.docs.markdown import REPOSITORY, blocks
from tests.docs.test_large_models import parsed

TEXT = (REPOSITORY / "docs" / "weights.md").read_text()
EXAMPLES: list[dict[str, Any]] = [yaml.safe_load(block) for block in blocks(TEXT, "yaml")]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["models"]["chat"]["source"])
def test_an_example_can_be_installed_with_arguments_that_vllm_knows(example: dict[str, Any]) -> None:
    args = application(render_chart(example), "chat")["args"]
    assert args["source"] == example["models"]["chat"]["source"]
    engine = args.get("engine", {})
    assert parsed(engine).load_format == engine.get("load_format", "auto")


def test_every_kind_of_source_has_a_line() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)://", TEXT)
    assert rows == ["hf", "s3", "pvc", "oci"]


def test_the_image_has_files_alone_and_a_layer_for_each_of_the_large_ones() -> None:
    (recipe,) = blocks(TEXT, "dockerfile")
    first, *copies = recipe.splitlines()
    assert first == "FROM scratch"
    assert all(re.fullmatch(r"COPY (\S+ )+/", line) for line in copies)
    assert max(line.count(".safetensors") for line in copies) == 1
