"""docs/agents.md: its commands are run, one after the other, against an agent app."""

import json
import os
import re
import subprocess
from pathlib import Path

import yaml

from serve_apps.agent.config import Agents, Limits
from serve_apps.common import metrics
from serve_apps.common.protocol import INTERNAL_HEADER
from serve_apps.common.secrets import InternalCredential
from tests.docs.markdown import REPOSITORY, blocks, shell_lines
from tests.serve_apps.agent.conftest import credential, gateway_url, models  # noqa: F401  # fixtures
from tests.serve_apps.agent.fake_models import TOKEN, FakeModels, Says
from tests.serve_apps.agent.replica import app_of
from tests.serve_apps.gateway.redis import RedisServer, redis_server  # noqa: F401  # a fixture
from tests.serve_apps.gateway.servers import PATIENCE_S, serving

TEXT = (REPOSITORY / "docs" / "agents.md").read_text()
TURNS = (
    Says({"tool": "calculate", "arguments": {"expression": "6 * 7"}}),
    Says({"tool": "answer"}),
    Says("It is 42."),
)


def run(command: str, url: str, run_id: str) -> str:
    """What a command prints. It shows what the gateway would show the app, in place of an API key."""
    command = command.replace("Authorization: Bearer $KEY", f"{INTERNAL_HEADER}: {TOKEN}")
    done = subprocess.run(
        ["bash", "-c", command.replace("curl", "curl -sS --fail-with-body", 1)],
        env=os.environ | {"URL": url, "RUN": run_id, "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_command_gets_an_answer(
    gateway_url: str,  # noqa: F811
    redis_server: RedisServer,  # noqa: F811
    tmp_path: Path,
    credential: InternalCredential,  # noqa: F811
    models: FakeModels,  # noqa: F811
) -> None:
    models.script = [*TURNS, *TURNS, *TURNS]
    _, whole, streamed, start, show, delete = shell_lines(TEXT)
    with serving(app_of("replica", gateway_url, redis_server.url, tmp_path), lifespan="on") as url:
        answer = json.loads(run(whole, url, ""))
        assert (answer["end_reason"], answer["steps"][0]["result"]) == ("answered", "42")
        assert '"step":{"tool":"calculate"' in run(streamed, url, "")
        run_id = json.loads(run(start, url, ""))["id"]
        assert json.loads(run(show, url, run_id))["id"] == run_id
        assert json.loads(run(delete, url, run_id))["deleted"] is True


def test_the_tools_and_limits_shown_are_accepted() -> None:
    shown, weather, tickets, _, graph, limits = blocks(TEXT, "yaml")
    helper = yaml.safe_load(shown)["agent"]["helper"]
    helper["tools"] |= yaml.safe_load(weather) | yaml.safe_load(tickets)
    helper |= yaml.safe_load(limits)
    agents = Agents.model_validate({"agents": {"helper": helper, **yaml.safe_load(graph)["agent"]}})
    # What is shown are the defaults.
    assert agents.agents["helper"].limits == Limits()


def test_every_metric_is_named() -> None:
    named = re.findall(r"`(ray_llm_agent_\w+)`", TEXT)
    assert named == [each.series for each in metrics.ALL if each.name.startswith("llm_agent_")]
