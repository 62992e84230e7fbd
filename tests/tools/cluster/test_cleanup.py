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
    wait = [sys.executable, "-c", "input()", str(FOLDER)]
    with (
        subprocess.Popen(wait, stdin=subprocess.PIPE, env=marked) as ours,
        subprocess.Popen(wait, stdin=subprocess.PIPE) as theirs,
    ):
        assert cleanup._is_marked(psutil.Process(ours.pid))
        assert not cleanup._is_marked(psutil.Process(theirs.pid))
        ours.kill()
        theirs.kill()


def test_a_mount_in_the_clusters_folders_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "_mount_points", lambda: ["/", str(FOLDER / "node1" / "x"), "/var/lib/other"])
    assert cleanup._mounts() == [str(FOLDER / "node1" / "x")]
