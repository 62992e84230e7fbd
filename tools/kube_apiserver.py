"""A Kubernetes API server without a cluster: it says whether objects would be accepted, and runs nothing.

kube-apiserver and etcd, built from their Go modules, on loopback ports and in a temporary folder. It knows the custom
resources of `tools.crds`. Both processes end with this one, however that ends.
"""

import ctypes
import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.crds import ESTABLISHED, crd_files, definition_name
from tools.gotools import binary
from tools.ports import free_port

#: Until the API server answers, and for it to take in a custom resource; a busy machine takes its time.
START_TIMEOUT_S = 120
POLL_S = 0.1
PR_SET_PDEATHSIG = 1
#: How much of a log a failure shows.
SHOWN_CHARACTERS = 2000

_LIBC = ctypes.CDLL(None)


class ApiServerFailed(RuntimeError):
    """A process did not start or ended early; the message has the path and the end of its log."""


class Refused(ValueError):
    """The API server would not accept the objects; the message is its own."""


class ApiServer:
    """A running API server; see `api_server`."""

    def __init__(self, folder: Path, kubectl: Path, url: str, token: str) -> None:
        self._folder = folder
        self._kubectl = kubectl
        self._url = url
        self._token = token
        self._namespaces = {"default"}

    def dry_run(self, objects: Sequence[dict[str, Any]], namespace: str = "default") -> None:
        """Ask whether ``objects`` would be accepted by server-side apply; ``namespace`` is for those that name none.

        Raises:
            Refused: Some would not.
        """
        named = {one["metadata"]["namespace"] for one in objects if "namespace" in one["metadata"]}
        for needed in sorted({namespace, *named} - self._namespaces):
            self.kubectl("create", "namespace", needed)
            self._namespaces.add(needed)
        self.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", objects=objects, namespace=namespace)

    def ready(self) -> bool:
        """Whether it answers requests."""
        try:
            self.kubectl("get", "--raw=/readyz")
        except Refused:
            return False
        return True

    def learn(self, definitions: Sequence[Path]) -> None:
        """Add the custom resources in the files ``definitions``.

        Raises:
            ApiServerFailed: It did not take them in.
        """
        try:
            self.kubectl("apply", "--server-side", *(f"--filename={file}" for file in definitions))
            deadline = time.monotonic() + START_TIMEOUT_S
            while missing := {definition_name(file) for file in definitions} - self._established():
                if time.monotonic() > deadline:
                    raise ApiServerFailed(f"not in use after {START_TIMEOUT_S} s: {', '.join(sorted(missing))}")
                time.sleep(POLL_S)
        except Refused as reason:
            raise ApiServerFailed(f"kube-apiserver did not take in the custom resources: {reason}") from reason

    def _established(self) -> set[str]:
        """The names of the custom resources that are in use."""
        return set(self.kubectl("get", "crd", f"--output=go-template={ESTABLISHED}").split())

    def kubectl(self, *arguments: str, objects: Sequence[dict[str, Any]] = (), namespace: str = "default") -> str:
        """What kubectl prints; ``objects`` are its standard input.

        Raises:
            Refused: It failed.
        """
        done = subprocess.run(
            [self._kubectl, f"--kubeconfig={self.kubeconfig(namespace)}", f"--cache-dir={self._folder}", *arguments],
            input="\n---\n".join(json.dumps(one) for one in objects),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Refused(done.stderr.strip())
        return done.stdout

    def kubeconfig(self, namespace: str) -> Path:
        """A kubeconfig with a default namespace; kubectl's flag would also refuse objects that name another one."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": self._url, "certificate-authority": str(self._folder / "apiserver.crt")},
                }
            ],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin", "namespace": namespace}}],
            "current-context": "test",
        }
        file = self._folder / f"{namespace}.kubeconfig"
        file.write_text(json.dumps(config))
        return file


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """Start an API server that knows the custom resources; it ends with the context.

    Raises:
        ToolUnavailable: A binary can neither be found nor built.
        ApiServerFailed: It did not start.
    """
    etcd, apiserver, kubectl = binary("etcd"), binary("kube-apiserver"), binary("kubectl")
    definitions = crd_files()
    storage, port, token = f"http://127.0.0.1:{free_port()}", free_port(), secrets.token_hex(16)
    with _folder() as folder, ExitStack() as processes:
        print(f"starting kube-apiserver in {folder} …", file=sys.stderr, flush=True)
        (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        server = ApiServer(folder, kubectl, f"https://127.0.0.1:{port}", token)
        started = [
            processes.enter_context(_running(name, command, folder))
            for name, command in (
                ("etcd", _etcd(etcd, folder, storage)),
                ("kube-apiserver", _apiserver(apiserver, folder, storage, port)),
            )
        ]
        _wait_until_ready(server, started)
        server.learn(definitions)
        yield server


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder; after a failed start it stays, since the logs are there."""
    folder = Path(tempfile.mkdtemp(prefix="kube-apiserver-"))
    try:
        yield folder
    except ApiServerFailed:
        raise
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def _etcd(program: Path, folder: Path, url: str) -> list[str]:
    peers = f"http://127.0.0.1:{free_port()}"
    return [
        str(program),
        f"--data-dir={folder / 'etcd'}",
        "--unsafe-no-fsync",  # nothing here outlives the process
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
    ]


def _apiserver(program: Path, folder: Path, storage: str, port: int) -> list[str]:
    return [
        str(program),
        f"--etcd-servers={storage}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        "--endpoint-reconciler-type=none",  # the Service "kubernetes" cannot lead to loopback, and none uses it
        "--service-cluster-ip-range=10.96.0.0/16",
        # It makes this certificate itself; its key may as well sign service account tokens, which nobody asks for.
        f"--cert-dir={folder}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'apiserver.key'}",
        f"--service-account-signing-key-file={folder / 'apiserver.key'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=AlwaysAllow",
        # Nothing here creates the account "default" that this plugin demands of every pod.
        "--disable-admission-plugins=ServiceAccount",
        "--feature-gates=ImageVolume=true",  # on by default from 1.35; off, it drops such volumes without a word
        "--enable-priority-and-fairness=false",
        "--profiling=false",
    ]


@dataclass(frozen=True)
class _Process:
    """A process with its log."""

    name: str
    log: Path
    popen: subprocess.Popen[bytes]

    def failure(self, what: str) -> ApiServerFailed:
        """The error that says ``what`` happened to it."""
        return ApiServerFailed(
            f"{self.name} {what}; its log, {self.log}, ends:\n{self.log.read_text()[-SHOWN_CHARACTERS:]}"
        )


@contextmanager
def _running(name: str, command: list[str], folder: Path) -> Iterator[_Process]:
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, preexec_fn=_end_with_parent
        )
    try:
        yield _Process(name, log, popen)
    finally:
        popen.kill()  # all it has lies in a temporary folder
        popen.wait()


def _end_with_parent() -> None:
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_until_ready(server: ApiServer, processes: Sequence[_Process]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not server.ready():
        for process in processes:
            if process.popen.poll() is not None:
                raise process.failure(f"ended with exit status {process.popen.returncode}")
        if time.monotonic() > deadline:
            raise processes[-1].failure(f"was not ready after {START_TIMEOUT_S} s")
        time.sleep(POLL_S)
