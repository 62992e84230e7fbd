"""Where the cluster keeps its things while it is up. `down` removes all of it but the nodes' image stores."""

from contextlib import AbstractContextManager
from pathlib import Path

from tools import cache as cache_

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
    return cache_.cache() / "cluster" / machine / "containerd"


def alone() -> AbstractContextManager[None]:
    """Wait until no other process starts, changes or ends the cluster."""
    return cache_.alone(cache_.cache() / "cluster" / "lock", "another command on the cluster")
