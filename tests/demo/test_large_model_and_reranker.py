"""What the demo has not, with real models: tensor parallelism, as the 70B preset would on GPUs, and the task score."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from tools.demo.__main__ import write_secrets
from tools.demo.cluster import serving
from tools.demo.models import models_root
from tools.demo.rendered import REPOSITORY, helm_template, ray_service
from tools.gotools import helm
from tools.ports import free_port

VALUES = [REPOSITORY / "values" / name for name in ("large-model-tp4.yaml", "environments/local.yaml")]
SETTINGS = [
    # The same weights with heads that two workers can share (tools/demo/models.py).
    "overrides.models.chat.source=pvc://demo-models/smollm2-135m-instruct-tp2",
    "overrides.models.chat.accelerator.count=2",
    "models.reranker.task=score",
    "models.reranker.source=pvc://demo-models/all-minilm-l6-v2",
    "models.reranker.accelerator.type=cpu",
]


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """The Serve config and the environment of its pods."""
    rendered = ray_service(helm_template(helm(), VALUES, [*SETTINGS, f"gateway.port={free_port()}"]))
    return {"serve": rendered.serve_config, "environment": rendered.environment, "labels": rendered.labels}


@pytest.fixture(scope="module")
def client(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """A client of the running service."""
    secrets: Path = tmp_path_factory.mktemp("secrets")
    key = write_secrets(secrets)
    environment = {
        **config["environment"],
        "LLM_SERVING_SECRETS": str(secrets),
        "LLM_SERVING_MODELS": str(models_root()),
    }
    url = f"http://127.0.0.1:{config['serve']['http_options']['port']}/v1"
    with (
        serving(config["serve"], environment, config["labels"]),
        openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client,
    ):
        yield client


def test_the_rendered_placement_has_a_bundle_for_each_worker(config: dict[str, Any]) -> None:
    chat = next(one for one in config["serve"]["applications"] if one["name"] == "chat")
    assert chat["args"]["placement"]["strategy"] == "STRICT_PACK"
    assert len(chat["args"]["placement"]["bundles"]) == 2


def test_two_workers_answer_as_one_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="chat", temperature=0, messages=[{"role": "user", "content": "What is the capital of France?"}]
    )
    assert answer.choices[0].message.content
    workers = [name for name in _process_names() if name.startswith("VLLM::Worker_TP")]
    assert sorted(workers) == ["VLLM::Worker_TP0", "VLLM::Worker_TP1"]


def test_a_reranker_puts_what_answers_the_query_first(client: openai.OpenAI) -> None:
    documents = ["The invoice is due in May.", "A cat sleeps on the sofa.", "The bridge was closed for repairs."]
    body = {"model": "reranker", "query": "Where is the cat?", "documents": documents}
    answer = client.post("/rerank", body=body, cast_to=dict[str, Any])
    first, *rest = answer["results"]
    assert first["index"] == 1
    assert all(first["relevance_score"] > other["relevance_score"] for other in rest)


def _process_names() -> list[str]:
    """The command lines of this process's descendants."""
    names = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            names.append(" ".join(process.cmdline()).strip())
    return names
