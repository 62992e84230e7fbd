import json
import socket
import sys
from pathlib import Path

import psutil
import pytest

from bench.gateway import systems
from bench.gateway.systems import CannotStart, System, chat_body, listens, program, tree
from tools.ports import free_port


def test_a_program_and_its_children_end_with_the_block() -> None:
    port = free_port()
    serve = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-m', 'http.server', '-b', '127.0.0.1', '{port}'])"
    )
    with program("server", [sys.executable, "-c", serve], lambda: listens(port)) as pid:
        pids = tree(pid)
        assert len(pids) == 2
    assert not any(psutil.pid_exists(one) for one in pids)
    assert not listens(port)


def test_a_program_that_ends_at_once_is_reported_with_its_log() -> None:
    command = [sys.executable, "-c", "print('no such model'); raise SystemExit(3)"]
    message = "router does not start; its log ends:\nno such model"
    with pytest.raises(CannotStart, match=message), program("router", command, lambda: False):
        pass


def test_a_port_where_nobody_is_does_not_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listens(port)
    assert not listens(port)


def test_a_process_that_has_ended_has_no_tree() -> None:
    assert tree(2**22 - 1) == []


def test_every_system_is_asked_for_the_same_but_the_model_s_name() -> None:
    ours, plain = (System(name, name, 1, dict, model=name) for name in ("mock", "plain"))
    asked = [json.loads(chat_body(system, tokens=7, stream=True, pace_ms=3)) for system in (ours, plain)]
    assert asked[0] == {
        "model": "mock",
        "messages": [{"role": "user", "content": "Count."}],
        "max_tokens": 7,
        "stream": True,
        "seed": 3,
    }
    assert asked[1] == asked[0] | {"model": "plain"}


def test_haproxy_and_the_model_are_told_apart(tmp_path: Path) -> None:
    with systems.backend() as behind, systems.haproxy(behind) as system:
        groups = system.processes()
        assert groups["model"] == [behind.pid]
        assert [psutil.Process(pid).name() for pid in groups["path"]] == ["haproxy"]
        assert systems.answers(system.port)
