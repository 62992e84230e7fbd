"""Whether this machine can run the cluster, and what it lacks."""

import os
import shutil
import sys
from pathlib import Path

import psutil

from tools.cache import cache
from tools.cluster import cgroups, network
from tools.cluster.commands import PATH, run
from tools.cluster.errors import Failed, Unsuitable
from tools.cluster.node import CNI_PROGRAMS

#: The Debian package of each program.
PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    f"{CNI_PROGRAMS}/bridge": "containernetworking-plugins",
    f"{CNI_PROGRAMS}/host-local": "containernetworking-plugins",
    f"{CNI_PROGRAMS}/portmap": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "sysctl": "procps",
    "openssl": "openssl",
    # These build images.
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}
#: The control plane takes 2 GB; what pods take comes on top.
NEEDED_MEMORY_GB = 4
NEEDED_DISK_GB = 10
#: Everything that the cluster asks of the kernel's networks, in a namespace that is gone at the end.
NETWORK_PROBE = """
ip link add br0 type bridge && ip link add veth0 type veth peer name veth1 && iptables -t nat -L -n >/dev/null &&
sysctl -n net.bridge.bridge-nf-call-iptables >/dev/null
"""


def check() -> None:
    """Nothing, if the cluster can run here.

    Raises:
        Unsuitable: It cannot; what to do about it, in one line.
    """
    if missing := missing_programs():
        raise Unsuitable(missing_packages(missing))
    if not cgroups.hierarchies():
        raise Unsuitable(f"no cgroups in {cgroups.MOUNT}; the cluster needs them mounted there, v1 or v2")
    probe = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", NETWORK_PROBE]
    try:
        run(*probe)
    except Failed as failed:
        problem = " ".join(str(failed).rpartition("` failed: ")[2].split())
        raise Unsuitable(f"no namespaces, bridges or iptables here ({problem}); try `modprobe br_netfilter`") from None
    if taken := network.clash():
        raise Unsuitable(f"{taken}; the cluster needs {', '.join(map(str, network.NETWORKS))}")
    check_room()


def check_root() -> None:
    """Nothing, if this is root on Linux.

    Raises:
        Unsuitable: It is not.
    """
    if sys.platform != "linux":
        raise Unsuitable("the cluster needs Linux; or set KUBECONFIG to another cluster")
    if os.geteuid() != 0:
        raise Unsuitable("the cluster needs root, for namespaces and mounts; or set KUBECONFIG to another cluster")


def install() -> str:
    """Install the Debian packages of what is missing; what was done, in one line.

    Raises:
        Unsuitable: This is no Debian.
        Failed: apt-get did not succeed.
    """
    missing = missing_programs()
    if not missing:
        return "nothing to install"
    if not shutil.which("apt-get", path=PATH):
        raise Unsuitable(f"not found: {', '.join(missing)}, and no apt-get to install them; the cluster needs Debian's")
    packages = packages_of(missing)
    run("apt-get", "update")
    run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--no-install-recommends", *packages)
    return f"installed {', '.join(packages)}"


def missing_programs() -> list[str]:
    """The programs that are not here."""
    return [program for program in PACKAGES if not shutil.which(program, path=PATH)]


def packages_of(programs: list[str]) -> list[str]:
    """The Debian packages that have ``programs``."""
    return sorted({PACKAGES[program] for program in programs})


def missing_packages(programs: list[str]) -> str:
    """The line that says which programs are not here and how to install them."""
    packages = " ".join(packages_of(programs))
    return f"not found: {', '.join(programs)}; `make packages`, or apt-get install --no-install-recommends {packages}"


def check_room() -> None:
    """Nothing, if there is memory and disk enough.

    Raises:
        Unsuitable: There is not.
    """
    available = psutil.virtual_memory().available / 1e9
    if available < NEEDED_MEMORY_GB:
        raise Unsuitable(f"{available:.1f} GB of memory are free; the cluster alone needs {NEEDED_MEMORY_GB}")
    for folder in (Path("/var/lib"), _existing(cache())):
        free = shutil.disk_usage(folder).free / 1e9
        if free < NEEDED_DISK_GB:
            raise Unsuitable(f"{free:.1f} GB are free under {folder}; the cluster needs {NEEDED_DISK_GB}")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())
