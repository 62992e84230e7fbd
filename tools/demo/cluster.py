"""A Ray node on this machine that plays a whole RayCluster: it serves one Serve config and leaves nothing behind."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from tools.demo.rendered import REPOSITORY
from tools.ports import free_port

#: Logical CPUs of the node. The replicas' shares of a small cluster add up to more than a laptop's cores.
LOGICAL_CPUS = 8
OBJECT_STORE_BYTES = 200 * 1024 * 1024
#: From ``ray start`` to an answering dashboard; a busy machine takes its time, and may have to start it again.
START_TIMEOUT_S = 300
#: The last words of a Ray that has waited in vain for its own node: 30 seconds, which no setting changes.
TOO_SLOW = "The current node timed out during startup"
#: For the processes to end by themselves before they are killed; there is nothing to save.
STOP_TIMEOUT_S = 5
#: For killed processes to be gone: the kernel takes back the memory of an engine first, on a busy machine not at once.
KILL_TIMEOUT_S = 60
#: Ray Serve's states of a replica that serves.
LIVE = ("RUNNING", "UPDATING")
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None)


class DeployFailed(RuntimeError):
    """Serve refused the config or an application did not start; the message is Serve's own."""


@dataclass(frozen=True)
class Progress:
    """How far a deployment is: each application's status in Ray Serve's words."""

    statuses: dict[str, str]

    @property
    def done(self) -> bool:
        """Whether every application runs."""
        return all(status == "RUNNING" for status in self.statuses.values())


def _end_with_parent() -> None:
    """Have the node end where this process is killed and cannot end it."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _port(url: str) -> int:
    port = httpx.URL(url).port
    assert port is not None
    return port


class LocalCluster:
    """One Ray node, started in a folder of its own; use it as a context manager.

    Every process it brings into being, HAProxy and the engine's workers too, is ended with it: this process adopts
    their orphans, so none can slip away.
    """

    def __init__(self, environment: dict[str, str], labels: dict[str, str], cpus: int = LOGICAL_CPUS) -> None:
        """``environment`` and ``labels`` are those of the Ray pods it stands in for; Ray Data fills all ``cpus``."""
        self._cpus = cpus
        # In /tmp whatever TMPDIR says: HAProxy's socket lies 70 characters below it and may have 97 in all.
        self.folder = Path(tempfile.mkdtemp(prefix="llms-", dir="/tmp"))
        self._labels = labels
        self._dashboard = f"http://127.0.0.1:{free_port()}"
        self.address = f"127.0.0.1:{free_port()}"
        self.metrics_url = f"http://127.0.0.1:{free_port()}/metrics"
        # One for all requests, as each new one reads the certificates of all authorities, for a tenth of a second. No
        # connection stays open: the node may be gone at any time.
        self._http = httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))
        self._process: subprocess.Popen[bytes] | None = None
        self.environment = {
            **os.environ,
            # One node's metrics are few, and Ray's 10 seconds are long for who looks at them.
            "RAY_metrics_report_interval_ms": "5000",
            **environment,
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(REPOSITORY), str(Path(sys.executable).parent), os.environ.get("PYTHONPATH", "")])
            ),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            # Nobody waits for streams to end when a laptop's demo is stopped.
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **self._haproxy_of_its_own(),
        }

    def _haproxy_of_its_own(self) -> dict[str, str]:
        """Files and ports of HAProxy that are one per machine by default: in a pod fine, on a laptop a clash."""
        files = {"CONFIG_FILE_LOC": "haproxy.cfg", "SOCKET_PATH": "admin.sock", "SERVER_STATE_FILE": "server-state"}
        base = self.folder / "haproxy"
        return {
            **{f"RAY_SERVE_HAPROXY_{name}": str(base / file) for name, file in files.items()},
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(REPOSITORY / "serve_apps" / "haproxy"),  # as in the images
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(base),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        }

    def __enter__(self) -> Self:
        _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._start()
        try:
            self._wait_for_dashboard()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        """Start Ray, which writes ray.log."""
        labels = ",".join(f"{key}={value}" for key, value in self._labels.items())
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *("--node-ip-address=127.0.0.1", f"--port={self.address.rpartition(':')[2]}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={_port(self._dashboard)}"),
            *(f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={_port(self.metrics_url)}"),
            *(f"--dashboard-agent-grpc-port={free_port()}", f"--runtime-env-agent-port={free_port()}"),
            *(f"--ray-client-server-port={free_port()}", f"--num-cpus={self._cpus}"),
            *(f"--object-store-memory={OBJECT_STORE_BYTES}", f"--temp-dir={self.folder / 'ray'}"),
            # Ray's own autoscaler has one node here, and in a pod KubeRay starts Ray without it, too. Its log monitor
            # reads every line of every process, in case a driver would print it.
            *("--no-monitor", "--include-log-monitor=false"),
        ]
        if labels:
            command.append(f"--labels={labels}")
        with (self.folder / "ray.log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def _wait_for_dashboard(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                last_words = (self.folder / "ray.log").read_text()[-2000:]
                if TOO_SLOW not in last_words:
                    raise DeployFailed(f"ray start failed:\n{last_words}")
                print("Ray gave its node up on this busy machine; starting it again …", file=sys.stderr, flush=True)
                _end(_processes_of(self._process.pid, str(self.folder)))
                self._start()
            try:
                if self._http.get(f"{self._dashboard}/api/serve/applications/", timeout=10).is_success:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        raise DeployFailed(f"Ray's dashboard did not answer within {START_TIMEOUT_S} s; see {self.folder}")

    def deploy(self, serve_config: dict[str, Any]) -> None:
        """PUT the Serve config, as KubeRay does; returns once Serve has accepted it.

        Raises:
            DeployFailed: the config is refused.
        """
        answer = self._http.put(f"{self._dashboard}/api/serve/applications/", json=serve_config)
        if not answer.is_success:
            raise DeployFailed(f"Serve refused the config: {answer.text[-2000:]}")

    def submit(self, entrypoint: str) -> str:
        """Run a program on the node as a Ray job, as KubeRay does; its id.

        Raises:
            DeployFailed: Ray takes no job.
        """
        answer = self._http.post(f"{self._dashboard}/api/jobs/", json={"entrypoint": entrypoint})
        if not answer.is_success:
            raise DeployFailed(f"Ray refused the job: {answer.text[-2000:]}")
        job: str = answer.json()["submission_id"]
        return job

    def job(self, job: str) -> str:
        """A job's status in Ray's words and, once it is over, what it has printed last."""
        status: str = self._http.get(f"{self._dashboard}/api/jobs/{job}").json()["status"]
        if status in ("PENDING", "RUNNING"):
            return status
        logs = self._http.get(f"{self._dashboard}/api/jobs/{job}/logs")
        printed = logs.json().get("logs", "") if logs.is_success else ""  # the job's agent may be too busy to say
        return f"{status}\n{printed[-4000:]}"

    def status(self) -> dict[str, Any]:
        """What Serve says of its applications: ``GET /api/serve/applications/``, key ``applications``."""
        applications: dict[str, Any] = self._details()["applications"]
        return applications

    def _details(self) -> dict[str, Any]:
        answer = self._http.get(f"{self._dashboard}/api/serve/applications/")
        answer.raise_for_status()
        details: dict[str, Any] = answer.json()
        return details

    def wait(self, names: list[str], timeout_s: float = 600, report: Callable[[Progress], None] | None = None) -> None:
        """Wait until the applications ``names`` run and are reached, calling ``report`` about once a second.

        Raises:
            DeployFailed: one failed, or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        statuses: dict[str, str] = {}
        while time.monotonic() < deadline:
            details = self._details()
            applications = details["applications"]
            statuses = {name: applications.get(name, {}).get("status", "NOT_STARTED") for name in names}
            progress = Progress(statuses)
            if report:
                report(progress)
            if progress.done and _are_reached(details["http_options"]["port"], [applications[name] for name in names]):
                return
            for name, status in statuses.items():
                if status in ("DEPLOY_FAILED", "UNHEALTHY"):
                    raise DeployFailed(f"application {name} is {status}: {self._reason(applications[name])}")
            time.sleep(1)
        raise DeployFailed(f"not running after {timeout_s:.0f} s: {statuses}; see {self.folder}")

    @staticmethod
    def _reason(application: dict[str, Any]) -> str:
        messages = [application.get("message", "")]
        messages += [one.get("message", "") for one in application.get("deployments", {}).values()]
        return "\n".join(filter(None, messages))[-3000:]

    def replicas(self, application: str, deployment: str) -> list[dict[str, Any]]:
        """The replicas of a deployment, as Serve lists them (state, pid, replica_id, …)."""
        found = self.status().get(application, {}).get("deployments", {}).get(deployment, {})
        replicas: list[dict[str, Any]] = found.get("replicas", [])
        return replicas

    def live_pids(self, application: str, deployment: str) -> list[int]:
        """The processes of a deployment's replicas that serve, in order; one that takes in a new config serves too."""
        replicas = self.replicas(application, deployment)
        return sorted(replica["pid"] for replica in replicas if replica["state"] in LIVE)

    def metrics(self) -> str:
        """One scrape of the node's Prometheus port."""
        return self._http.get(self.metrics_url).text

    def stop(self) -> None:
        """End every process of the node and remove its folder."""
        if self._process is None:
            return
        _end(_processes_of(self._process.pid, str(self.folder)))
        self._process.wait()
        self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)


def _are_reached(port: int, applications: list[dict[str, Any]]) -> bool:
    """Whether HAProxy knows the way to ``applications``; Serve tells it of one that runs, and it takes its time."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/-/routes", timeout=60)
    except httpx.TransportError:  # it has not started
        return False
    wanted = {one["route_prefix"] for one in applications} - {None}
    return answer.is_success and wanted <= answer.json().keys()


def _processes_of(root: int, folder: str) -> list[psutil.Process]:
    """The process ``root``, its descendants, and those of our orphans that carry the node's folder or session."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            if os.getsid(process.pid) == root or any(folder in word for word in process.cmdline()):
                found[process.pid] = process
                found |= {child.pid: child for child in process.children(recursive=True)}
        except (psutil.Error, ProcessLookupError):  # it has ended meanwhile
            continue
    return list(found.values())


def _end(processes: list[psutil.Process]) -> None:
    """Ask each process to end, then kill those that stay."""
    for sign, timeout_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, KILL_TIMEOUT_S)):
        for process in processes:
            try:
                process.send_signal(sign)
            except psutil.NoSuchProcess:
                continue
        _, processes = psutil.wait_procs(processes, timeout=timeout_s)
        if not processes:
            return


@contextmanager
def serving(
    serve_config: dict[str, Any],
    environment: dict[str, str],
    labels: dict[str, str],
    cpus: int = LOGICAL_CPUS,
    timeout_s: float = 600,
) -> Iterator[LocalCluster]:
    """A cluster on which every application of ``serve_config`` runs."""
    with LocalCluster(environment, labels, cpus) as cluster:
        cluster.deploy(serve_config)
        cluster.wait([application["name"] for application in serve_config["applications"]], timeout_s)
        yield cluster
