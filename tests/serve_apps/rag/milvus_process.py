"""What stands for Milvus in the test cluster (tools/cluster/images/milvus), as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(__file__).parents[3] / "tools" / "cluster" / "images" / "milvus" / "milvus.py"
PASSWORD = "made-up"
#: To end by itself, in seconds.
PATIENCE_S = 60


@dataclass(frozen=True)
class MilvusProcess:
    """A running one."""

    uri: str
    health_url: str


@contextmanager
def milvus_process(folder: Path) -> Iterator[MilvusProcess]:
    """Runs one whose files are in ``folder``."""
    environment = {
        "LOCALSTORAGE_PATH": str(folder),
        "COMMON_SECURITY_DEFAULTROOTPASSWORD": PASSWORD,
        "PROXY_PORT": "0",
        "METRICS_PORT": "0",
    }
    command = [sys.executable, str(PROGRAM), "run", "standalone"]
    with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            told = process.stdout.readline().split()
            assert told[:1] == ["milvus:"], told
            yield MilvusProcess(f"http://127.0.0.1:{told[1]}", f"http://127.0.0.1:{told[2]}")
        finally:
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
