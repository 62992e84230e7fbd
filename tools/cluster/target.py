"""The cluster that targets such as ``make e2e`` run against: the user's, kind's, or ours."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools.cache import cache
from tools.cluster import lifecycle, loading, requirements
from tools.cluster.errors import Failed
from tools.cluster.kubectl import TIMEOUT_S, kubectl
from tools.cluster.state import KUBECONFIG, alone
from tools.gotools import binary
from tools.images.image import IMAGES, REPOSITORY
from tools.images.local import export


@dataclass(frozen=True)
class Target:
    """A cluster that answers."""

    kubeconfig: Path
    #: Named by $KUBECONFIG; found with kind; or the one of `tools.cluster`.
    kind: Literal["given", "kind", "ours"]
    #: The name of kind's cluster.
    name: str = ""

    def kubectl(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002 - as subprocess calls it
        namespace: str | None = None,
        check: bool = True,
        timeout_s: float = TIMEOUT_S,
    ) -> str:
        """What kubectl prints; see `tools.cluster.kubectl`."""
        return kubectl(
            *arguments,
            input=input,
            namespace=namespace,
            check=check,
            timeout_s=timeout_s,
            kubeconfig=self.kubeconfig,
        )

    def environment(self) -> dict[str, str]:
        """The environment for helm and ct: this cluster, and the pinned tools first."""
        folders = [str(binary(name).parent) for name in ("helm", "ct", "kubectl")]
        path = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)])
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def load(self, *names: str) -> None:
        """Have the nodes hold images, by their names in `tools.images`; a given cluster must be able to pull them."""
        if self.kind == "ours":
            with alone():
                loading.load(names)
        elif self.kind == "kind":
            for name in names:
                self._load_into_kind(name)
        else:
            pulled = ", ".join(IMAGES[name].reference for name in names)
            print(f"the cluster of $KUBECONFIG must be able to pull {pulled}", file=sys.stderr, flush=True)

    def _load_into_kind(self, name: str) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch) / "image.tar"
            export(name, archive)
            _kind("load", "image-archive", str(archive), "--name", self.name)


def target() -> Target:
    """The cluster to use: $KUBECONFIG's, else kind's first, else ours, which is started if it does not run.

    Raises:
        ClusterError: There is none, and ours cannot be started.
    """
    given = os.environ.get("KUBECONFIG")
    if given and given != str(KUBECONFIG):
        return Target(Path(given), "given")
    if not given and (clusters := _kind_clusters()):
        file = cache() / "cluster" / "kind.kubeconfig"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(_kind("get", "kubeconfig", "--name", clusters[0]))
        return Target(file, "kind", clusters[0])
    requirements.check_root()
    if not lifecycle.running():
        # As a program of its own, after which the cluster's processes are nobody's children.
        up = [sys.executable, "-m", "tools.cluster", "up"]
        if subprocess.run(up, cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=False).returncode:
            raise Failed("the cluster did not start; it said why before this")
    return Target(KUBECONFIG, "ours")


def _kind_clusters() -> list[str]:
    return _kind("get", "clusters").split() if shutil.which("kind") else []


def _kind(*arguments: str) -> str:
    done = subprocess.run(["kind", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"`kind {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout
