"""docs/batch.md: its commands are run against a gateway with a batch app and a model that answers as vLLM does."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from serve_apps.batch.config import BatchSettings
from serve_apps.batch.dedicated import MAX_PASSES
from serve_apps.batch.lines import MAX_ERRORS
from serve_apps.batch.objects import OVER
from serve_apps.common import metrics
from tests.docs.markdown import REPOSITORY, blocks, shell_lines
from tests.serve_apps.batch.replica import replica_of
from tests.serve_apps.gateway.conftest import GatewayServer, gateway, upstream  # noqa: F401  # fixtures
from tests.serve_apps.gateway.fake_vllm import vllm
from tests.serve_apps.gateway.servers import PATIENCE_S, Behaviour, Upstream, serving, until
from tools.demo.rendered import helm_template
from tools.gotools import helm

TEXT = (REPOSITORY / "docs" / "batch.md").read_text()


@dataclass
class Shell:
    """Where the commands are run: beside the file ``requests.jsonl``."""

    folder: Path
    url: str
    key: str

    def run(self, *command: str, **variables: str) -> str:
        """What a command prints."""
        given = {"URL": self.url, "KEY": self.key, "OPENAI_API_KEY": self.key, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | given | variables | {"no_proxy": "*"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def curl(self, command: str, **variables: str) -> str:
        """What a command with curl prints."""
        return self.run("bash", "-c", command.replace("curl", "curl -sS --fail-with-body", 1), **variables)


@pytest.fixture
def shell(
    gateway: Callable[..., GatewayServer],  # noqa: F811
    upstream: Callable[[Behaviour], tuple[Upstream, str]],  # noqa: F811
    tmp_path: Path,
) -> Iterator[Shell]:
    (tmp_path / "requests.jsonl").write_text(blocks(TEXT, "json")[0])
    _, model = upstream(vllm)
    running = gateway({})
    replica = replica_of(running.url, f"file://{tmp_path}/storage", tmp_path)
    with serving(replica.app, lifespan="on") as batch:
        running.ingress.route_by({"models": {"chat": {"url": model, "task": "generate"}}, "batch": batch})
        yield Shell(tmp_path, running.url, running.key)


def test_a_command_gets_an_answer(shell: Shell) -> None:
    upload, create, show, content, cancel, listing, delete, *_ = shell_lines(TEXT)
    file = json.loads(shell.curl(upload))["id"]
    batch = json.loads(shell.curl(create, FILE=file))
    assert (batch["status"], batch["completion_window"]) == ("validating", "24h")
    until(lambda: json.loads(shell.curl(show, BATCH=batch["id"]))["status"] in OVER)
    ended = json.loads(shell.curl(show, BATCH=batch["id"]))
    assert ended["status"] == "completed", ended
    answer = json.loads(shell.curl(content, OUTPUT=ended["output_file_id"]))
    assert (answer["custom_id"], answer["response"]["status_code"]) == ("one", 200)
    assert [one["id"] for one in json.loads(shell.curl(listing))["data"]] == [batch["id"]]
    with pytest.raises(AssertionError, match="Cannot cancel a batch with status 'completed'"):
        shell.curl(cancel, BATCH=batch["id"])
    assert json.loads(shell.curl(delete, FILE=file))["deleted"] is True


def test_openais_client_gets_one(shell: Shell) -> None:
    (program,) = blocks(TEXT, "python")
    status, *_ = shell.run(sys.executable, "-c", program).splitlines()
    assert status == "completed BatchRequestCounts(completed=1, failed=0, total=1)"


def test_the_command_line_answers_a_file(shell: Shell) -> None:
    words = shell_lines(TEXT)[-1].replace("$URL", shell.url).split()
    shell.run(sys.executable, *words[1:])
    (answer,) = (shell.folder / "answers.jsonl").read_text().splitlines()
    assert json.loads(answer)["custom_id"] == "one"


def test_the_settings_shown_are_accepted_and_the_numbers_told_are_the_defaults() -> None:
    block = yaml.safe_load(blocks(TEXT, "yaml")[0])["batch"]
    shown = {key: value for key, value in block.items() if key not in ("enabled", "storage")}
    assert BatchSettings.model_validate(shown) == BatchSettings()
    assert f"{BatchSettings().retention_hours} hours" in TEXT
    assert f"the first {MAX_ERRORS}" in TEXT


def test_the_settings_of_ray_data_are_settings() -> None:
    shown = yaml.safe_load(blocks(TEXT, "yaml")[1])["batch"]
    settings = BatchSettings.model_validate(shown)
    assert (settings.ray_data.from_lines, settings.ray_data.senders) == (10_000, 4)
    assert settings.concurrency == 256


def test_the_job_shown_is_rendered(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(blocks(TEXT, "yaml")[2])
    (job,) = (one for one in helm_template(helm(), [tmp_path / "values.yaml"]) if one["kind"] == "RayJob")
    assert job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] == 4
    assert (job["spec"]["backoffLimit"], MAX_PASSES) == (3, 4)
    assert "three times" in TEXT
    assert "four passes" in TEXT


def test_every_code_of_a_wrong_line_is_named() -> None:
    code = (REPOSITORY / "serve_apps" / "batch" / "lines.py").read_text()
    codes = set(re.findall(r'(?:Wrong\(|code=)\s*"(\w+)"', code))
    assert codes == set(re.findall(r"`((?:invalid|missing|duplicate|empty|too)_\w+)`", TEXT))


def test_every_metric_is_named() -> None:
    named = re.findall(r"`(ray_llm_batch_\w+)`", TEXT)
    assert named == [each.series for each in metrics.ALL if each.name.startswith("llm_batch_")]
