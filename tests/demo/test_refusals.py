"""What cannot work is said in one line before anything is started."""

import argparse
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tools.demo import __main__ as demo
from tools.demo.rendered import REPOSITORY
from tools.gotools import ToolUnavailable
from tools.ports import free_port


def test_a_taken_port_names_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "tools.demo", f"--port={port}"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == f"demo: port {port} is taken; choose another: make demo PORT={port + 100}\n"


def test_a_free_port_and_enough_memory_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=16e9))
    demo.check_machine(free_port())


def test_too_little_memory_says_how_much_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2e9))
    with pytest.raises(demo.CannotRun, match=r"2\.0 GB of memory are free, 11 GB are needed"):
        demo.check_machine(free_port())


def test_a_preset_that_is_not_there_points_to_the_index(tmp_path: Path) -> None:
    with pytest.raises(demo.CannotRun, match=r"no such preset: .*nothing\.yaml; see values/README\.md"):
        demo.render(tmp_path / "nothing.yaml", 8000)


def test_a_typo_in_a_preset_is_helms_message(tmp_path: Path) -> None:
    preset = tmp_path / "typo.yaml"
    preset.write_text("models: {chat: {sauce: 'hf://org/name'}}")
    with pytest.raises(ValueError, match="sauce"):
        demo.render(preset, 8000)


def test_no_helm_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def absent() -> Path:
        raise ToolUnavailable("helm: not found; install helm 3.16+ or Go 1.26+")

    monkeypatch.setattr(demo, "helm", absent)
    monkeypatch.setattr(
        demo,
        "_arguments",
        lambda: argparse.Namespace(port=free_port(), file=REPOSITORY / "values" / "rag.yaml", ask="", stays=False),
    )
    assert demo.main() == 1
    assert capsys.readouterr().err == "demo: helm: not found; install helm 3.16+ or Go 1.26+\n"
