"""The wait of a worker's preStop hook, with a process for the raylet, a port for the head and a program for `ray`."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_apps.common import drain as module
from serve_apps.common.drain import Head, Raylet, drain, find_raylet, main

NODE = "ab" * 28


@pytest.fixture
def raylet() -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like a raylet, and ends a minute later or when it is told."""
    program = "import sys; print(flush=True); sys.stdin.read(1)"
    command = ["raylet", "-c", program, "--node_id=" + NODE]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, executable=sys.executable, stdin=pipe, stdout=pipe) as process:
        assert process.stdout
        process.stdout.readline()  # until then /proc may not know its arguments
        yield process
        process.kill()


@pytest.fixture
def head() -> Iterator[str]:
    """The address of a port that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def nobody(head: str) -> str:
    """An address where nobody answers: a closed port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The pod's log; and heads are asked often."""
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "LOG", tmp_path / "log")
    (tmp_path / "log").touch()
    return tmp_path / "log"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head is soon given up."""
    monkeypatch.setattr(module, "HEAD_AWAY_S", 0.2)


def ray(folder: Path, refusals: int = 0, ends: int | None = None) -> list[str]:
    """A program that notes its arguments, refuses at first, and has process ``ends`` go as Ray has a drained raylet."""
    script = folder / "ray.py"
    script.write_text(
        "import os, sys\n"
        f"notes = open({str(folder / 'asked')!r}, 'a+')\n"
        "notes.seek(0)\n"
        f"refused = len(notes.readlines()) < {refusals}\n"
        "notes.write(' '.join(sys.argv[1:]) + '\\n')\n"
        f"if {ends!r} and not refused: os.kill({ends!r}, 15)\n"
        "sys.exit(refused)\n"
    )
    return [sys.executable, str(script)]


def asked(folder: Path) -> list[str]:
    """What the program was asked, one line each."""
    return (folder / "asked").read_text().splitlines()


def test_the_raylet_is_found_by_its_name_and_has_its_nodes_id(raylet: subprocess.Popen[bytes]) -> None:
    found = find_raylet()
    assert found is not None
    # A Ray that another test runs on this machine has one, too.
    mine = Raylet(raylet.pid, NODE)
    assert found == mine or Path(f"/proc/{found.pid}/cmdline").read_bytes().partition(b"\0")[0].endswith(b"raylet")
    assert mine.runs()
    raylet.kill()
    os.waitid(os.P_PID, raylet.pid, os.WEXITED | os.WNOWAIT)
    assert not mine.runs(), "a zombie"
    raylet.wait()
    assert not mine.runs()


def test_it_waits_until_the_raylet_has_ended(raylet: subprocess.Popen[bytes], head: str, tmp_path: Path) -> None:
    program = ray(tmp_path, ends=raylet.pid)
    assert drain(Raylet(raylet.pid, NODE), Head(head, program), 60) == "drained"
    (line,) = asked(tmp_path)
    assert line.startswith(f"drain-node --address={head} --node-id={NODE} --reason=DRAIN_NODE_REASON_PREEMPTION")
    assert int(line.rpartition("=")[2]) in range(58, 61)


def test_a_head_that_refused_is_asked_again(raylet: subprocess.Popen[bytes], head: str, tmp_path: Path) -> None:
    assert drain(Raylet(raylet.pid, NODE), Head(head, ray(tmp_path, refusals=2, ends=raylet.pid)), 60) == "drained"
    assert len(asked(tmp_path)) == 3


def test_a_head_that_agreed_is_not_asked_again(raylet: subprocess.Popen[bytes], head: str, tmp_path: Path) -> None:
    assert drain(Raylet(raylet.pid, NODE), Head(head, ray(tmp_path)), 1) == "not drained after 1 s"
    assert len(asked(tmp_path)) == 1


@pytest.mark.usefixtures("impatient")
def test_a_head_that_stays_away_ends_the_wait(raylet: subprocess.Popen[bytes], nobody: str, tmp_path: Path) -> None:
    told = drain(Raylet(raylet.pid, NODE), Head(nobody, ray(tmp_path)), 600)
    assert told.startswith("the head was away")


@pytest.mark.usefixtures("impatient")
def test_so_does_one_that_goes_while_it_waits(raylet: subprocess.Popen[bytes], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = Head(f"127.0.0.1:{server.getsockname()[1]}", ray(tmp_path))
        assert not gone.away
    assert drain(Raylet(raylet.pid, NODE), gone, 600).startswith("the head was away")


def test_without_a_raylet_there_is_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch, head: str, log: Path) -> None:
    monkeypatch.setenv("RAY_ADDRESS", head)
    monkeypatch.setattr(module, "find_raylet", lambda: None)
    assert main(["--seconds=600"]) == 0
    assert log.read_text() == ""


@pytest.mark.usefixtures("impatient")
def test_the_hook_tells_what_ended_the_wait_and_never_fails(
    raylet: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, nobody: str, log: Path
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    monkeypatch.setattr(module, "find_raylet", lambda: Raylet(raylet.pid, NODE))
    monkeypatch.setattr(Head, "drain", lambda *_: False)
    assert main(["--seconds=600"]) == 0
    assert log.read_text().startswith("preStop: the head was away")
