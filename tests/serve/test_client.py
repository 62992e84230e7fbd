"""serve_apps.llm.client, by the program of docs/large-models.md, in a process of its own that joins the cluster."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.docs.markdown import REPOSITORY, blocks
from tests.serve.conftest import Service
from tests.serve.waiting import until

(PROGRAM,) = blocks((REPOSITORY / "docs" / "large-models.md").read_text(), "python")
#: What else is tried once the program of the document has run.
MORE = """
import json

def refused(call):
    try:
        call()
    except Exception as error:
        return str(error)

crowd = [f"{number}" for number in range(20)]
told = {
    "text": text,
    "texts": texts,
    "crowd": chat.batch_generate(crowd, at_a_time=20, max_tokens=1),
    "changed": chat.generate("again"),
    "misspelt": refused(lambda: chat.generate("x", temprature=0)),
    "invalid": refused(lambda: chat.reconfigure(sampling={"max_tokens": 0})),
}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(service: Service) -> Iterator[dict[str, str]]:
    """What the program saw; the service is put back afterwards."""
    environment = {**service.cluster.environment, "RAY_ADDRESS": service.cluster.address}
    before = processes(service)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + MORE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert processes(service) == before
    yield json.loads(done.stdout.splitlines()[-1])
    service.cluster.deploy(service.config)
    service.cluster.wait([application["name"] for application in service.config["applications"]])


def processes(service: Service) -> set[int]:
    """Those of replicas that stay, whatever load does to the number of others."""
    until(lambda: service.cluster.live_pids("chat", "VLLMServer:chat"), lambda seen: len(seen) == 1)
    applications = [("chat", "VLLMServer:chat"), ("gateway", "Gateway"), ("rag", "Rag")]
    return {pid for application in applications for pid in service.cluster.live_pids(*application)}


def test_a_prompt_goes_on(told: dict[str, str]) -> None:
    assert told["text"] == "Once upon a time: word0 word1 word2 "


def test_many_prompts_are_answered_in_their_order(told: dict[str, str]) -> None:
    assert [text.partition(":")[0] for text in told["texts"]] == ["One", "Two", "Three"]


def test_more_prompts_than_there_is_room_for_wait_for_it(told: dict[str, str]) -> None:
    assert [text.partition(":")[0] for text in told["crowd"]] == [f"{number}" for number in range(20)]


def test_settings_change_in_the_replicas_that_run(told: dict[str, str]) -> None:
    assert told["changed"] == "again: word0 word1 "


def test_what_is_misspelt_or_invalid_is_said(told: dict[str, str]) -> None:
    assert "temprature" in told["misspelt"]
    assert "max_tokens" in told["invalid"]
