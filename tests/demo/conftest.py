"""The demo, started as a newcomer starts it; the tests are its clients."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tools.demo.rendered import REPOSITORY
from tools.ports import free_port

START_TIMEOUT_S = 600
STOP_TIMEOUT_S = 90


@dataclass(frozen=True)
class Demo:
    """A running demo: what it printed, and what it told its user to use."""

    transcript: str
    url: str
    key: str
    metrics_url: str
    process: subprocess.Popen[str]

    @property
    def root(self) -> str:
        """The gateway's address without /v1."""
        return self.url.removesuffix("/v1")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """``make demo`` on the preset agent, which is the preset rag and an agent; ended with Ctrl-C, which must leave
    nothing behind.

    Ended with its module: two clusters with real models do not fit into 24 GB side by side.
    """
    log = tmp_path_factory.mktemp("demo") / "stderr.log"
    preset = REPOSITORY / "values" / "agent.yaml"
    command = [sys.executable, "-m", "tools.demo", f"--port={free_port()}", f"--file={preset}"]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        transcript = _read_until_ready(process, log)
        url, key, metrics_url = (_told(transcript, label) for label in ("URL", "Key", "Metrics"))
        yield Demo(transcript, url, key, metrics_url, process)
    finally:
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=STOP_TIMEOUT_S)
    left = [pid for pid in family if _runs(pid)]
    assert process.returncode == 0, log.read_text()
    assert not left, f"the demo left processes behind: {left}"


def _runs(pid: int) -> bool:
    try:
        # One that has ended and that nobody has taken note of is still listed where these tests' process adopted it.
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _read_until_ready(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    late = threading.Timer(START_TIMEOUT_S, process.kill)
    late.start()
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C stops it" in line:
            late.cancel()
            return "".join(lines)
    late.cancel()
    raise AssertionError(f"the demo ended early:\n{''.join(lines)}\n{log.read_text()[-4000:]}")


def _told(transcript: str, label: str) -> str:
    found = re.search(rf"^{label}: (\S+)$", transcript, re.MULTILINE)
    assert found, transcript
    return found[1]
