"""docs/lora.md: its curl commands are asked of a real gateway, its examples rendered, its codes compared."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.chart.render import VALUES, application, render_chart
from tests.docs.curl import ask, curls
from tests.docs.markdown import REPOSITORY, blocks, commands
from tests.serve_apps.gateway.conftest import GatewayServer, gateway, upstream  # noqa: F401  # fixtures
from tests.serve_apps.gateway.fake_vllm import vllm

FILE = REPOSITORY / "docs" / "lora.md"
TEXT = FILE.read_text()
PRESET = VALUES / "multi-lora.yaml"
#: What the answer to each command has.
EXPECTED = {'"model": "tuned:sql"': '"model":"sql"', '"stream": true': "data: [DONE]", "/models/": '"parent":"tuned"'}


@pytest.fixture
def served(
    gateway: Callable[..., GatewayServer],  # noqa: F811  # the fixture
    upstream: Callable[..., tuple[Any, str]],  # noqa: F811
) -> GatewayServer:
    """A gateway with the model and adapters of the preset."""
    (deployment,) = application(render_chart(files=[PRESET]), "gateway")["deployments"]
    models = deployment["user_config"]["models"]
    models["tuned"]["url"] = upstream(vllm)[1]
    return gateway(models)


@pytest.mark.parametrize("command", curls(FILE))
def test_a_command_gets_an_answer(command: str, served: GatewayServer) -> None:
    printed = ask(command, served)
    (expected,) = (text for part, text in EXPECTED.items() if part in command)
    assert expected in printed


def test_all_curl_commands_are_found() -> None:
    assert len(curls(FILE)) == sum(words[0] == "curl" for words in commands(FILE)) == len(EXPECTED)


@pytest.mark.parametrize("block", blocks(TEXT, "yaml"))
def test_an_example_can_be_installed(block: str) -> None:
    assert render_chart(yaml.safe_load(block), files=[PRESET])


def test_every_code_is_one_that_a_replica_knows() -> None:
    source = (REPOSITORY / "serve_apps" / "llm" / "adapters.py").read_text()
    told = set(re.findall(r"(?m)^\| \d+ \| `(\w+)`", TEXT))
    assert told == set(re.findall(r'code="(\w+)"', source))
