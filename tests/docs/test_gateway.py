"""docs/gateway.md: its curl commands are asked of a real gateway, and its tables and examples are compared with it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from serve_apps.common.protocol import TASK_PATHS
from tests.chart.render import VALUES, application, render_chart
from tests.docs.curl import ask, curls
from tests.docs.markdown import REPOSITORY, blocks, commands
from tests.serve_apps.gateway.conftest import GatewayServer, gateway, upstream  # noqa: F401  # fixtures
from tests.serve_apps.gateway.servers import Answer

FILE = REPOSITORY / "docs" / "gateway.md"
TEXT = FILE.read_text()
MESSAGE = {"role": "assistant", "content": "Hi."}
#: What a model answers on each path; more is not asked of it here.
ANSWERS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"choices": [{"index": 0, "message": MESSAGE}]},
    "/v1/messages": {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hi."}]},
    "/v1/embeddings": {"data": [{"index": 0, "embedding": [0.5]}]},
}


async def model(answer: Answer) -> None:
    """A model that answers in one word, whatever it is asked."""
    received = answer.upstream.received[-1]
    if orjson.loads(received.body).get("stream"):
        await answer.begin(200, {"content-type": "text/event-stream"})
        await answer.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"Hi."}}]}\n\n')
        await answer.chunk(b"data: [DONE]\n\n", more=False)
        return
    body = orjson.dumps(ANSWERS[received.path.partition("/internal")[0] or received.path])
    await answer.whole(200, body, {"content-type": "application/json"})


@pytest.fixture
def served(
    gateway: Callable[..., GatewayServer],  # noqa: F811  # the fixture
    upstream: Callable[..., tuple[Any, str]],  # noqa: F811
) -> GatewayServer:
    """A gateway with the models and routes of values/release.yaml and an embedder; one server answers for all."""
    (deployment,) = application(render_chart(files=[VALUES / "release.yaml"]), "gateway")["deployments"]
    table = deployment["user_config"]
    _, url = upstream(model)
    for entry in table["models"].values():
        # A standalone model is dialled at its URL.
        entry |= {"url": url, "runtime": "standalone"}
        entry.pop("credential", None)
    table["models"]["embedder"] = {"url": url, "task": "embed", "runtime": "standalone"}
    server = gateway(table["models"])
    server.ingress.route_by(table)
    return server


@pytest.mark.parametrize("command", curls(FILE))
def test_a_command_gets_an_answer(command: str, served: GatewayServer) -> None:
    printed = ask(command, served)
    assert expected(command) in printed.replace('": ', '":')


def expected(command: str) -> str:
    """What the command's answer has."""
    if "x-llm-version" in command:
        return "x-llm-version: chat-large"
    if '"stream": true' in command:
        return "data: [DONE]"
    (found,) = {path: text for path, text in PATHS.items() if path in command}.values()
    return found


PATHS = {
    "/v1/models": '"id":"assistant"',
    "/v1/chat/completions": '"content":"Hi."',
    "/v1/messages": '"text":"Hi."',
    "/v1/embeddings": '"embedding":[0.5]',
    "/v1/usage": '"tenant":"acme"',
}


def test_all_curl_commands_are_found() -> None:
    assert len(curls(FILE)) == sum(words[0] == "curl" for words in commands(FILE)) > 0


def table_rows(header: str) -> list[list[str]]:
    """The rows of the table that begins with ``header``."""
    _, _, table = TEXT.partition(f"{header}\n")
    lines = table.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_paths_of_each_task_are_those_there_are() -> None:
    told = {
        task.strip("`"): set(re.findall(r"`(/[^`]+)`", paths))
        for task, paths in table_rows("| task of the model | paths |")
    }
    for task, paths in TASK_PATHS.items():
        if task in ("pipeline", "agent"):
            assert paths <= told["a RAG pipeline" if task == "pipeline" else "an agent"]
        else:
            assert paths == told[task]


@pytest.mark.parametrize("block", blocks(TEXT, "yaml"))
def test_an_example_can_be_installed(block: str) -> None:
    assert render_chart(yaml.safe_load(block), files=[VALUES / "release.yaml"])


def test_the_example_of_a_release_is_the_presets() -> None:
    preset = yaml.safe_load((VALUES / "release.yaml").read_text())["gateway"]["routes"]
    (block,) = (block for block in blocks(TEXT, "yaml") if "routes:" in block)
    assert yaml.safe_load(block)["gateway"]["routes"] == preset


def test_every_code_is_one_that_the_gateway_knows() -> None:
    source = "".join(file.read_text() for file in Path(REPOSITORY, "serve_apps", "gateway").glob("*.py"))
    codes = {code for row in table_rows("| status | `code` | means |") for code in re.findall(r"`(\w+)`", row[1])}
    assert codes
    assert {code for code in codes if f'"{code}"' not in source} == set()
