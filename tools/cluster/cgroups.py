"""A cgroup for each node, as the root of its pods: under a common one, a kubelet ends the other's pods as orphans."""

import shutil
import time
from contextlib import suppress
from pathlib import Path

from tools.cluster.errors import Failed

MOUNT = Path("/sys/fs/cgroup")
#: What a v1 group must be told before it takes a process in.
INHERITED = ("cpuset.cpus", "cpuset.mems")
#: What the kubelet needs of v2.
CONTROLLERS = "+cpu +cpuset +memory +pids"
#: After its processes have been killed, the kernel takes a moment to let go of a group.
REMOVE_TIMEOUT_S = 60


def is_v2(mount: Path = MOUNT) -> bool:
    """Whether this machine has the one hierarchy of cgroup v2."""
    return (mount / "cgroup.controllers").exists()


def hierarchies(mount: Path = MOUNT) -> list[Path]:
    """The roots of the hierarchies: one with v2, one for each controller with v1."""
    if is_v2(mount):
        return [mount]
    return sorted(file.parent for file in mount.glob("*/cgroup.procs") if not file.parent.is_symlink())


def make(name: str, mount: Path = MOUNT) -> None:
    """The group ``name`` in every hierarchy."""
    if is_v2(mount):
        (mount / "cgroup.subtree_control").write_text(CONTROLLERS)
    for hierarchy in hierarchies(mount):
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        for file in INHERITED:
            if (hierarchy / file).exists() and not is_v2(mount):
                shutil.copyfile(hierarchy / file, group / file)


def existing(name: str, mount: Path = MOUNT) -> list[Path]:
    """The folders of the group ``name``."""
    return [hierarchy / name for hierarchy in hierarchies(mount) if (hierarchy / name).exists()]


def remove(name: str, mount: Path = MOUNT) -> None:
    """Remove the group ``name`` with all below it, once its processes have ended.

    Raises:
        Failed: The kernel still holds some.
    """
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    while groups := existing(name, mount):
        for group in groups:
            for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                _rmdir(folder)
            _rmdir(group)
        if time.monotonic() > deadline:
            raise Failed(f"the kernel still holds {', '.join(map(str, groups))}; their cgroup.procs say by what")
        time.sleep(0.05)


def _rmdir(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
