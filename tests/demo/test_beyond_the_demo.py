"""What the demo has not, with real models: tensor parallelism (as of the 70B preset), LoRA, reranking, and batches."""

import contextlib
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from openai.types import Batch

from serve_apps.common.secrets import InternalCredential
from serve_apps.llm.peft import WEIGHTS
from tools.demo.__main__ import write_secrets
from tools.demo.adapters import write_adapter
from tools.demo.cluster import LocalCluster, serving
from tools.demo.models import CLAIM, models_root
from tools.demo.rendered import REPOSITORY, helm_template, ray_service
from tools.gotools import helm
from tools.ports import free_port

#: Lines of a batch that Ray Data sends.
LARGE = 80
VALUES = [REPOSITORY / "values" / name for name in ("large-model-tp4.yaml", "environments/local.yaml")]
SETTINGS = [
    # The same weights with heads that two workers can share (tools/demo/models.py).
    "overrides.models.chat.source=pvc://demo-models/smollm2-135m-instruct-tp2",
    "overrides.models.chat.accelerator.count=2",
    "models.chat.lora.directory=pvc://demo-models/adapters",
    "models.chat.lora.adapters.sql.source=pvc://demo-models/smollm2-135m-instruct-adapters/sql",
    "models.chat.lora.maxLoras=2",
    "models.chat.lora.maxRank=8",
    "models.reranker.task=score",
    "models.reranker.source=pvc://demo-models/all-minilm-l6-v2",
    "models.reranker.accelerator.type=cpu",
    "batch.enabled=true",
    f"batch.rayData.fromLines={LARGE}",
]
#: A worker of a tensor parallel model, as the kernel calls it.
WORKER = "VLLM::Worker_TP"
#: A list of processes is no snapshot.
LISTED_WITHIN_S = 60
#: For a batch whose worker is killed; engines on a busy CPU take their time.
BATCH_TIMEOUT_S = 400


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The Serve config and the environment of its pods."""
    storage = f"batch.storage=file://{tmp_path_factory.mktemp('batches')}"
    rendered = ray_service(helm_template(helm(), VALUES, [*SETTINGS, storage, f"gateway.port={free_port()}"]))
    return {"serve": rendered.serve_config, "environment": rendered.environment, "labels": rendered.labels}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's models, and a folder of adapters of which some cannot be used."""
    root = tmp_path_factory.mktemp("models")
    (root / CLAIM).mkdir()
    for folder in (models_root() / CLAIM).iterdir():
        (root / CLAIM / folder.name).symlink_to(folder)
    adapters = root / CLAIM / "adapters"
    shutil.copytree(root / CLAIM / "smollm2-135m-instruct-adapters", adapters)
    write_adapter(adapters / "third", seed=3)
    write_adapter(adapters / "wide", seed=4, rank=16)
    write_adapter(adapters / "foreign", seed=5, hidden=2048, base_model_name_or_path="org/another")
    write_adapter(adapters / "odd", seed=6)
    weights = adapters / "odd" / WEIGHTS
    weights.write_bytes(weights.read_bytes().replace(b"gate_proj", b"side_proj"))
    return root


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the credentials are."""
    return tmp_path_factory.mktemp("secrets")


@pytest.fixture(scope="module")
def key(secrets: Path) -> str:
    """The client's."""
    return write_secrets(secrets)


@pytest.fixture(scope="module")
def cluster(config: dict[str, Any], models: Path, secrets: Path, key: str) -> Iterator[LocalCluster]:
    """The running service."""
    environment = {
        **config["environment"],
        "LLM_SERVING_SECRETS": str(secrets),
        "LLM_SERVING_MODELS": str(models),
    }
    with serving(config["serve"], environment, config["labels"], cpus=6) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(config: dict[str, Any], cluster: LocalCluster, key: str) -> Iterator[openai.OpenAI]:
    """A client of it."""
    url = f"http://127.0.0.1:{config['serve']['http_options']['port']}/v1"
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
        yield client


def test_the_rendered_placement_has_a_bundle_for_each_worker(config: dict[str, Any]) -> None:
    chat = next(one for one in config["serve"]["applications"] if one["name"] == "chat")
    assert chat["args"]["placement"]["strategy"] == "STRICT_PACK"
    assert len(chat["args"]["placement"]["bundles"]) == 2


def test_two_workers_answer_as_one_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="chat",
        temperature=0,
        max_tokens=16,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
    )
    assert answer.choices[0].message.content
    deadline = time.monotonic() + LISTED_WITHIN_S
    # All of the machine's, by the kernel's name: among this process's descendants some have been missing for a minute.
    while [name for name in names() if name.startswith(WORKER)] != [WORKER, WORKER]:
        assert time.monotonic() < deadline, sorted(names())
        time.sleep(1)


def names() -> list[str]:
    """The names of all processes, as the kernel has them: 15 characters."""
    found = []
    for file in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            found.append(file.read_text().strip())
    return found


def ask(client: openai.OpenAI, model: str) -> Any:
    """What ``model`` says to one and the same question, with the odds of each token."""
    return client.chat.completions.create(
        model=model,
        temperature=0,
        max_tokens=8,
        logprobs=True,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
    )


def odds(answer: Any) -> list[float]:
    return [token.logprob for token in answer.choices[0].logprobs.content]


def test_adapters_and_their_base_differ_in_what_they_say(client: openai.OpenAI) -> None:
    base, named, of_the_folder = (ask(client, model) for model in ("chat", "sql", "chat:support"))
    assert [answer.model for answer in (base, named, of_the_folder)] == ["chat", "sql", "support"]
    for one, other in combinations([odds(answer) for answer in (base, named, of_the_folder)], 2):
        # Of the same weights they would be equal but for rounding.
        assert max(abs(a - b) for a, b in zip(one, other, strict=False)) > 0.1, (one, other)


def test_more_adapters_than_there_is_room_for_take_turns(client: openai.OpenAI) -> None:
    names = ["chat:third", "chat:support", "sql", "chat"] * 2
    with ThreadPoolExecutor(len(names)) as callers:
        answers = list(callers.map(lambda name: ask(client, name), names))
    assert [answer.model for answer in answers] == ["third", "support", "sql", "chat"] * 2


@pytest.mark.parametrize(
    ("adapter", "why"),
    [
        ("wide", r"its rank is 16, and this model takes 8 at most"),
        ("foreign", "it was made for another base"),
        ("odd", "side_proj"),  # which vLLM itself finds out
    ],
)
def test_a_broken_adapter_is_said_to_be_and_harms_no_other(client: openai.OpenAI, adapter: str, why: str) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match=why):
        ask(client, f"chat:{adapter}")
    assert ask(client, "sql").choices[0].message.content
    assert ask(client, "chat").choices[0].message.content


@pytest.mark.parametrize("name", ["chat:nope", "chat:../adapters/third", "chat:/etc", "third", "chat:a\0b"])
def test_what_is_no_adapter_does_not_exist(client: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        ask(client, name)


def test_nobody_reaches_vllms_own_loading_of_adapters(client: openai.OpenAI, secrets: Path) -> None:
    root = str(client.base_url).removesuffix("/v1/")
    token = InternalCredential(secrets / "internal" / "token").value()
    body = {"lora_name": "third", "lora_path": "/etc"}
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters"):
        past_the_gateway = httpx.post(f"{root}/internal/chat{path}", json=body, headers={"x-llm-internal": token})
        through_it = httpx.post(f"{root}{path}", json=body, headers={"authorization": f"Bearer {client.api_key}"})
        assert (past_the_gateway.status_code, through_it.status_code) == (404, 404), path


def test_a_reranker_puts_what_answers_the_query_first(client: openai.OpenAI) -> None:
    documents = ["The invoice is due in May.", "A cat sleeps on the sofa.", "The bridge was closed for repairs."]
    body = {"model": "reranker", "query": "Where is the cat?", "documents": documents}
    answer = client.post("/rerank", body=body, cast_to=dict[str, Any])
    first, *rest = answer["results"]
    assert first["index"] == 1
    assert all(first["relevance_score"] > other["relevance_score"] for other in rest)


def test_a_batch_sent_by_ray_data_whose_worker_is_killed_has_every_line_once(
    client: openai.OpenAI, cluster: LocalCluster
) -> None:
    lines = [
        {
            "custom_id": f"line-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "chat", "messages": [{"role": "user", "content": f"{number}"}], "max_tokens": 1},
        }
        for number in range(LARGE)
    ]
    content = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

    def state() -> Batch:
        try:
            return client.batches.retrieve(batch.id)
        except (openai.APIStatusError, openai.APIConnectionError):  # its worker is away
            return batch

    def wait_for(holds: Callable[[Batch], bool]) -> Batch:
        deadline = time.monotonic() + BATCH_TIMEOUT_S
        while not holds(seen := state()):
            assert time.monotonic() < deadline, seen
            time.sleep(0.5)
        return seen

    senders: set[str] = set()

    def begun(seen: Batch) -> bool:
        # From the beginning on: by the first line that is known to be answered, the last one may be.
        senders.update(command for _, command in _processes() if command.startswith("ray::MapWorker"))
        return bool(seen.request_counts and seen.request_counts.completed)

    wait_for(begun)
    assert senders
    (worker,) = cluster.live_pids("batch", "Batch")
    os.kill(worker, signal.SIGKILL)
    ended = wait_for(lambda seen: seen.status in ("completed", "failed", "expired"))
    assert ended.request_counts
    assert (ended.status, ended.request_counts.completed) == ("completed", LARGE)
    records = [json.loads(line) for line in client.files.content(ended.output_file_id or "").text.splitlines()]
    assert Counter(record["custom_id"] for record in records) == Counter(line["custom_id"] for line in lines)
    assert {record["response"]["body"]["usage"]["completion_tokens"] for record in records} == {1}


def _processes() -> list[tuple[psutil.Process, str]]:
    """This process's descendants, and their command lines."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            found.append((process, " ".join(process.cmdline()).strip()))
    return found
