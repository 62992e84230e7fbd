"""The end of the cluster: nothing stays but the image stores, however it came to its end.

What belongs to it is found on the machine itself, not only by records: processes by their environment and network
namespace, the rest by name.
"""

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tools.cache import cache
from tools.cluster import cgroups, network
from tools.cluster.commands import run
from tools.cluster.control_plane import CONTROL
from tools.cluster.machine import OWN_FOLDERS, Machine
from tools.cluster.node import NODES
from tools.cluster.state import FOLDER, MARK

MACHINES: Sequence[Machine] = (CONTROL, *(node.machine for node in NODES))
NETNS_FOLDER = Path("/run/netns")
#: For what had gigabytes, on a busy machine.
KILL_TIMEOUT_S = 60


def clean() -> list[str]:
    """End and remove everything; what is left nevertheless, one line each."""
    _kill(KILL_TIMEOUT_S)
    for machine in reversed(MACHINES):
        network.disconnect(machine)
    _remove_netns_mount()
    for mount in reversed(_mounts()):
        run("umount", "--lazy", mount)
    for node in NODES:
        cgroups.remove(node.cgroup)
    if not _mounts():  # never remove what a mount leads to
        shutil.rmtree(FOLDER, ignore_errors=True)
    for folder in OWN_FOLDERS:
        with suppress(OSError):  # not empty: not only ours
            Path(folder).rmdir()
    return leftovers()


def leftovers() -> list[str]:
    """What there is of the cluster on this machine, one line each."""
    return [
        *(f"process {process.pid}: {words}" for process in processes() if (words := _words(process))),
        *(f"network namespace {machine.netns}" for machine in MACHINES if network.exists(machine)),
        *(f"link {network.HOST_LINK}" for _ in [1] if Path("/sys/class/net", network.HOST_LINK).exists()),
        *(f"mount {mount}" for mount in _mounts()),
        *(f"cgroup {group}" for node in NODES for group in cgroups.existing(node.cgroup)),
        *(f"folder {FOLDER}" for _ in [1] if FOLDER.exists()),
    ]


def processes() -> list[psutil.Process]:
    """Every process of the cluster outside containers; those in containers end with their machine."""
    inside = {pid for machine in MACHINES if network.exists(machine) for pid in _in_netns(machine)}
    return [process for process in psutil.process_iter() if process.pid in inside or _is_marked(process)]


def _kill(timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while (found := processes()) and time.monotonic() < deadline:
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=1)


def _is_marked(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == str(FOLDER)
    except psutil.Error:
        return False


def _in_netns(machine: Machine) -> list[int]:
    return [int(pid) for pid in run("ip", "netns", "pids", machine.netns).split()]


def _mounts() -> list[str]:
    """Mounts of this machine in the cluster's folders; there should be none, since machines have their own."""
    ours = (FOLDER, cache() / "cluster")
    return [point for point in _mount_points() if any(Path(point).is_relative_to(folder) for folder in ours)]


def _mount_points() -> list[str]:
    return [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]


def _remove_netns_mount() -> None:
    """``ip netns`` leaves its folder mounted on itself, for the next namespace."""
    if str(NETNS_FOLDER) in _mount_points() and not any(NETNS_FOLDER.iterdir()):
        run("umount", str(NETNS_FOLDER))


def _words(process: psutil.Process) -> str:
    """What a process was started as; nothing once it has ended, as those that nodes start all the time may have."""
    try:
        return " ".join(process.cmdline())[:120] or process.name()
    except psutil.Error:
        return ""
