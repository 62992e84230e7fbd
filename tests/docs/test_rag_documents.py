"""docs/rag.md, "Documents": its commands are run, one after the other, against a RAG app."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from serve_apps.common.protocol import INTERNAL_HEADER
from tests.chart.render import application, of_kind, render_chart
from tests.docs.markdown import REPOSITORY, blocks, shell_lines
from tests.serve_apps.gateway.servers import PATIENCE_S
from tests.serve_apps.rag.conftest import RagServer, credential, gateway, gateway_url, rag, store_uri  # noqa: F401
from tests.serve_apps.rag.docx import docx, paragraph
from tests.serve_apps.rag.fake_gateway import TOKEN
from tests.serve_apps.rag.pdf import pdf

SECTION = (REPOSITORY / "docs" / "rag.md").read_text().partition("## Documents\n")[2].partition("\n## ")[0]


def shell(pattern: str) -> list[str]:
    """The section's commands that begin like this, as a shell reads them."""
    return [line for line in shell_lines(SECTION) if line.startswith(pattern)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that the commands name."""
    (tmp_path / "manual.docx").write_bytes(docx(paragraph("The manual.")))
    (tmp_path / "report.pdf").write_bytes(pdf("The report."))
    (tmp_path / "faq.jsonl").write_text('{"id": "faq/1", "text": "one"}\n')
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.md").write_text("one")
    (tmp_path / "internal").mkdir()
    (tmp_path / "internal" / "token").write_text(TOKEN)
    return tmp_path


def run(command: str, server: RagServer, folder: Path) -> str:
    """What a command prints. It shows what the gateway would show the app, in place of an API key."""
    environment = os.environ | {
        "URL": str(server.client.base_url).rstrip("/"),
        "LLM_SERVING_SECRETS": str(folder),
        "PYTHONPATH": str(REPOSITORY),
        "no_proxy": "*",
    }
    command = command.replace("Authorization: Bearer $KEY", f"{INTERNAL_HEADER}: {TOKEN}")
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_command_gets_an_answer(rag: Callable[..., RagServer], folder: Path) -> None:  # noqa: F811  # the fixture
    server = rag()
    told = [run(each.replace("curl", "curl -sS --fail-with-body", 1), server, folder) for each in shell("curl ")]
    assert [text.count('"status":"indexed"') for text in told] == [2, 1, 1, 0, 0]
    assert told[3].count('"metadata"') == 4
    assert '"status":"deleted"' in told[4]


def test_a_folder_is_brought_in(rag: Callable[..., RagServer], folder: Path) -> None:  # noqa: F811
    (command,) = shell("python -m serve_apps.rag.ingest")
    told = run(f"{command.replace('python', shlex.quote(sys.executable), 1)} --tenant=acme", rag(), folder)
    assert "1 indexed" in told


def test_its_examples_can_be_installed() -> None:
    preset = REPOSITORY / "values" / "rag.yaml"
    examples = (render_chart(yaml.safe_load(block), files=[preset]) for block in blocks(SECTION, "yaml"))
    sized, brought_in, brought_in_by_ray = examples
    _, reading = application(sized, "rag")["deployments"]
    assert reading["autoscaling_config"]["max_replicas"] == 8
    assert of_kind(brought_in, "CronJob")
    assert of_kind(brought_in_by_ray, "RayJob")
