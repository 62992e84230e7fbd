import os
import subprocess
import sys

import psutil
import pytest

from tools.cluster import cleanup
from tools.cluster.state import FOLDER, MARK


def test_a_process_of_the_cluster_is_found_by_its_environment() -> None:
    """Records of it may be lost; a person who looks at its logs is not one of them."""
    marked = {**os.environ, MARK: str(FOLDER)}
    wait = [sys.executable, "-c", "print(flush=True); input()", str(FOLDER)]
    with (
        subprocess.Popen(wait, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=marked) as ours,
        subprocess.Popen(wait, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as theirs,
    ):
        for one in (ours, theirs):  # Popen is done a moment before the kernel shows its environment
            assert one.stdout is not None
            assert one.stdout.readline() == b"\n"
        assert cleanup._is_marked(psutil.Process(ours.pid))
        assert not cleanup._is_marked(psutil.Process(theirs.pid))
        ours.kill()
        theirs.kill()


def test_a_process_that_ends_while_what_is_left_is_listed_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes start programs all the time, which are gone before they are named."""
    with subprocess.Popen([sys.executable, "-c", ""]) as program:
        ended = psutil.Process(program.pid)
    monkeypatch.setattr(cleanup, "processes", lambda: [psutil.Process(), ended])
    told = [line for line in cleanup.leftovers() if line.startswith("process ")]
    assert [line.partition(":")[0] for line in told] == [f"process {os.getpid()}"]


def test_a_mount_in_the_clusters_folders_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "_mount_points", lambda: ["/", str(FOLDER / "node1" / "x"), "/var/lib/other"])
    assert cleanup._mounts() == [str(FOLDER / "node1" / "x")]
