"""How an API server ends; what it accepts is tested in tests/chart/test_kube_apiserver.py."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tools import kube_apiserver
from tools.kube_apiserver import ApiServerFailed, api_server

REPOSITORY = Path(kube_apiserver.__file__).parents[1]
#: Starts a process that would run for an hour, prints its id and waits.
PARENT = """
import pathlib, sys, time
from tools.kube_apiserver import _running
with _running("sleep", ["sleep", "3600"], pathlib.Path(sys.argv[1])) as process:
    print(process.popen.pid, flush=True)
    time.sleep(3600)
"""


def test_a_failed_start_names_the_log_and_shows_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, script in (("etcd", "echo no space left; exit 3"), ("kube-apiserver", "sleep 60"), ("kubectl", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(kube_apiserver, "binary", lambda name: tmp_path / name)
    message = r"^etcd ended with exit status 3; its log, (.*), ends:\nno space left$"
    with pytest.raises(ApiServerFailed, match=message) as failed, api_server():
        pass
    log = Path(re.findall(message, str(failed.value))[0])
    assert log.read_text() == "no space left\n"
    shutil.rmtree(log.parent)


def test_the_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    with parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.send_signal(signal.SIGKILL)
    with suppress(psutil.NoSuchProcess):  # it is a zombie where nobody waits for orphans
        while child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
