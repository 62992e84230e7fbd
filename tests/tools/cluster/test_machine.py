"""What a machine knows of its processes; that it starts and ends them is seen when a cluster is up."""

import json
import os
import subprocess
from pathlib import Path

import psutil
import pytest

from tools.cluster import machine as module
from tools.cluster.errors import Failed
from tools.cluster.machine import Machine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(module, "LOGS", tmp_path)
    (tmp_path / "node1" / "processes").mkdir(parents=True)
    return Machine("node1", "10.89.0.11")


def record(machine: Machine, name: str, pid: int, started: float) -> None:
    (machine.folder / "processes" / f"{name}.json").write_text(json.dumps([pid, started]))


def test_a_recorded_process_is_alive(machine: Machine) -> None:
    record(machine, "kubelet", os.getpid(), psutil.Process().create_time())
    assert machine.alive("kubelet")
    assert not machine.alive("containerd")


def test_another_process_with_its_id_is_not_it(machine: Machine) -> None:
    record(machine, "kubelet", os.getpid(), psutil.Process().create_time() - 1)
    assert not machine.alive("kubelet")


def test_a_process_that_has_ended_is_not_alive(machine: Machine) -> None:
    with subprocess.Popen(["sleep", "60"]) as ended:
        record(machine, "kubelet", ended.pid, psutil.Process(ended.pid).create_time())
        assert machine.alive("kubelet")
        ended.kill()
    assert not machine.alive("kubelet")


def test_a_failure_has_the_path_and_the_end_of_the_log(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "node1-kubelet.log").write_text("long ago\n" * 1000 + "no space left\n")
    with pytest.raises(Failed, match=r"(?s)^kubelet on node1 ended; its log, .*/node1-kubelet.log, ends:.*no space"):
        machine.check("kubelet")


def test_a_machine_that_is_down_runs_nothing(machine: Machine) -> None:
    with pytest.raises(Failed, match=r"^node1 is down; `make cluster` starts it$"):
        machine.run("true")


def test_nothing_of_the_users_environment_gets_in(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert set(module._environment({"TMPDIR": "/x"})) == {"PATH", "HOME", "LLM_SERVING_CLUSTER", "GOGC", "TMPDIR"}
