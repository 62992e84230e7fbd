"""Where the cluster keeps its things while it is up. `down` removes all of it but the nodes' image stores."""

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.cache import cache

#: A short path, since unix sockets lie below it. There is one cluster on a machine.
FOLDER = Path("/var/lib/llm-serving-cluster")
KUBECONFIG = FOLDER / "kubeconfig"
LOGS = FOLDER / "logs"
CERTIFICATES = FOLDER / "certificates"
VOLUMES = FOLDER / "volumes"
#: In the environment of every process of the cluster, so that all are found even where no record of them is left.
MARK = "LLM_SERVING_CLUSTER"


def images(machine: str) -> Path:
    """The image store of a node. It outlives the cluster: images are imported once, not at every start."""
    return cache() / "cluster" / machine / "containerd"


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other process starts, changes or ends the cluster."""
    file = cache() / "cluster" / "lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another command on the cluster …", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
