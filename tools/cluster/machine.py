"""A machine of the cluster: a network, a mount and a process namespace, held by one process.

That process is the machine's pid 1. Killing it is pulling the plug: the kernel ends every process of the machine, pods
too, and drops every mount.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tools.cluster.commands import PATH
from tools.cluster.errors import Failed
from tools.cluster.state import FOLDER, LOGS, MARK

#: How much of a log a failure shows.
SHOWN_CHARACTERS = 2000
#: Folders that programs insist on; each machine has its own under these paths.
OWN_FOLDERS = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers")
#: The cluster's DNS.
DNS_ADDRESS = "10.96.0.10"
KILL_TIMEOUT_S = 10

#: What pid 1 does: make the machine's own mounts, then wait for orphans. Arguments: its folder, OWN_FOLDERS.
PID_1 = r"""
set -e
folder=$1; shift
# Copies of other machines' namespaces would keep them alive after they are deleted.
umount --recursive --lazy /run/netns 2>/dev/null || true
# Sockets, locks and namespaces of its own, which are gone when it is.
resolver=$(realpath --canonicalize-missing /etc/resolv.conf)
mount -t tmpfs -o mode=755 tmpfs /run
for own in "$@"; do mount --bind "$folder$own" "$own"; done
mkdir -p "$(dirname "$resolver")"
touch "$resolver"
mount --bind "$folder/resolv.conf" "$resolver"
# The kubelet insists on these kernel parameters, which belong to the host: show it files that hold what it wants.
while read -r parameter value; do
    file=$(mktemp /run/parameter.XXXXXX)
    echo "$value" >"$file"
    mount --bind "$file" "/proc/sys/$parameter"
done <<'END'
kernel/keys/root_maxbytes 25000000
kernel/keys/root_maxkeys 1000000
kernel/panic 10
kernel/panic_on_oops 1
vm/overcommit_memory 1
vm/panic_on_oom 0
END
trap : CHLD
sleep infinity &
echo up
exec >/dev/null
while :; do wait || true; done
"""


@dataclass(frozen=True)
class Machine:
    """One machine; its network is made by `tools.cluster.network`."""

    name: str
    address: str

    @property
    def netns(self) -> str:
        """Its network namespace, as ``ip netns`` names it."""
        return f"llms-{self.name}"

    @property
    def folder(self) -> Path:
        """Its disk."""
        return FOLDER / self.name

    def log(self, process: str) -> Path:
        """The log of one of its processes."""
        return LOGS / f"{self.name}-{process}.log"

    def boot(self) -> None:
        """Start pid 1, unless it runs.

        Raises:
            Failed: It could not make its mounts.
        """
        if self.alive("pid1"):
            return
        for folder in OWN_FOLDERS:
            Path(folder).mkdir(parents=True, exist_ok=True)
            (self.folder / folder.removeprefix("/")).mkdir(parents=True, exist_ok=True)
        (self.folder / "resolv.conf").write_text(f"nameserver {DNS_ADDRESS}\n")
        LOGS.mkdir(exist_ok=True)
        # fmt: off
        command = [
            "nsenter", f"--net=/run/netns/{self.netns}",
            "unshare", "--mount", "--propagation=private", "--pid", "--fork", "--mount-proc",
            "bash", "-c", PID_1, "pid1", str(self.folder), *OWN_FOLDERS,
        ]
        # fmt: on
        with self.log("pid1").open("ab") as log:
            unshare = self._popen(command, subprocess.PIPE, log.fileno(), {})
        assert unshare.stdout is not None
        with unshare.stdout as output:
            if output.readline() != b"up\n":
                raise self.failure("pid1", "did not start")
        self._record("pid1", psutil.Process(unshare.pid).children()[0])

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start the process ``name`` in the machine, unless it runs; it outlives this one."""
        if self.alive(name):
            return
        with self.log(name).open("ab") as log:
            started = self._popen([*self._enter(), *command], log.fileno(), log.fileno(), environment or {})
        self._record(name, psutil.Process(started.pid))

    def run(self, *command: str, stdin: str | None = None) -> str:
        """What ``command`` prints in the machine.

        Raises:
            Failed: Its exit status is not 0.
        """
        done = subprocess.run(
            [*self._enter(), *command],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=_environment({}),
            cwd="/",
        )
        if done.returncode:
            raise Failed(f"`{' '.join(command)}` failed on {self.name}: {done.stderr.strip()}")
        return done.stdout

    def succeeds(self, *command: str) -> bool:
        """Whether ``command`` ends in the machine with exit status 0."""
        try:
            self.run(*command)
        except Failed:
            return False
        return True

    def alive(self, process: str) -> bool:
        """Whether the process that was started by this name runs."""
        return self._process(process) is not None

    def started(self, process: str) -> float:
        """When the process that runs by this name was started, in seconds of Unix time.

        Raises:
            Failed: None runs.
        """
        self.check(process)
        started: float = json.loads(self._record_of(process).read_text())[1]
        return started

    def check(self, process: str) -> None:
        """Nothing, if it runs.

        Raises:
            Failed: It has ended.
        """
        if not self.alive(process):
            raise self.failure(process, "ended")

    def failure(self, process: str, what: str) -> Failed:
        """The error that says ``what`` happened to a process."""
        log = self.log(process)
        end = log.read_text(errors="replace")[-SHOWN_CHARACTERS:] if log.exists() else ""
        return Failed(f"{process} on {self.name} {what}; its log, {log}, ends:\n{end}")

    def stop(self, process: str) -> None:
        """End one process, at once."""
        # The recorded one is nsenter, outside; the program is its child.
        if found := self._process(process):
            family = [*found.children(), found]
            for one in family:
                one.kill()
            psutil.wait_procs(family, timeout=KILL_TIMEOUT_S)

    def kill(self) -> None:
        """Pull the plug."""
        if found := self._process("pid1"):
            found.kill()
            psutil.wait_procs([found], timeout=KILL_TIMEOUT_S)

    def _enter(self) -> list[str]:
        pid1 = self._process("pid1")
        if pid1 is None:
            raise Failed(f"{self.name} is down; `make cluster` starts it")
        return ["nsenter", f"--target={pid1.pid}", "--net", "--mount", "--pid"]

    @staticmethod
    def _popen(command: list[str], stdout: int, stderr: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=_environment(environment),
            cwd="/",
            start_new_session=True,
        )

    def _record(self, name: str, process: psutil.Process) -> None:
        file = self._record_of(name)
        file.parent.mkdir(exist_ok=True)
        # With its start time, since the kernel gives a process id again.
        file.write_text(json.dumps([process.pid, process.create_time()]))

    def _record_of(self, name: str) -> Path:
        return self.folder / "processes" / f"{name}.json"

    def _process(self, name: str) -> psutil.Process | None:
        """The recorded process, if it is still that one."""
        try:
            pid, started = json.loads(self._record_of(name).read_text())
            process = psutil.Process(pid)
            # One that is just ending has left its namespaces.
            if process.create_time() != started or not Path(f"/proc/{pid}/ns/net").exists():
                return None
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None
        return process


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process: nothing of the user's, whose proxy settings would lead it out of the cluster.

    All but a few are Go, whose garbage collector takes a quarter of their CPU; here memory is what there is more of.
    """
    return {"PATH": PATH, "HOME": str(Path.home()), MARK: str(FOLDER), "GOGC": "400", **more}
