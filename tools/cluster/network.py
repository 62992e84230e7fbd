"""The cluster's networks: a switch on ``control``, a cable to each node, and one to the host.

============  ====================================================================
10.89.0.0/24  machines: control .1, node N .1N, the host .254
10.244.0.0/16 pods: 10.244.N.0/24 on node N
10.96.0.0/16  Services; kube-proxy on each machine leads them to pods
============  ====================================================================

Nothing leads out: the cluster is cut off from the internet, and the host's firewall is not touched.
"""

import json
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path

from tools.cluster.commands import run
from tools.cluster.errors import Failed
from tools.cluster.machine import Machine

MACHINES = IPv4Network("10.89.0.0/24")
PODS = IPv4Network("10.244.0.0/16")
SERVICES = IPv4Network("10.96.0.0/16")
NETWORKS = (MACHINES, PODS, SERVICES)
HOST_ADDRESS = "10.89.0.254"
#: The host's end of its cable.
HOST_LINK = "llms-host"
SWITCH = "br0"
#: Ends of cables inside of machines: a node's, and on control that of the host's.
NODE_END, CONTROL_END = "eth0", "host"


def pods_of(index: int) -> IPv4Network:
    """The pod network of node ``index``."""
    return IPv4Network(f"10.244.{index}.0/24")


def connect_control(control: Machine) -> None:
    """The switch, and the host's cable with its routes to machines, pods and Services."""
    if exists(control):
        return
    _add(control)
    inside = ("-n", control.netns)
    _ip(*inside, "link", "add", SWITCH, "type", "bridge")
    _ip(*inside, "address", "add", f"{control.address}/{MACHINES.prefixlen}", "dev", SWITCH)
    _ip(*inside, "link", "set", SWITCH, "up")
    # Leads nowhere: a call from control itself needs some route before kube-proxy turns it to a pod.
    _ip(*inside, "route", "add", str(SERVICES), "via", HOST_ADDRESS)
    # What only crosses the switch is none of kube-proxy's business here.
    _sysctl(control, "net.bridge.bridge-nf-call-iptables", 0)
    _ip("link", "add", HOST_LINK, "type", "veth", "peer", "name", CONTROL_END, "netns", control.netns)
    _ip(*inside, "link", "set", CONTROL_END, "master", SWITCH, "up")
    _ip("address", "add", f"{HOST_ADDRESS}/{MACHINES.prefixlen}", "dev", HOST_LINK)
    _ip("link", "set", HOST_LINK, "up")
    for network in (PODS, SERVICES):
        _ip("route", "add", str(network), "via", control.address, "dev", HOST_LINK)


def connect_node(node: Machine, index: int, control: Machine, others: dict[int, Machine]) -> None:
    """A node's cable to the switch, and the routes to the pods of ``others`` (by index) and to the rest."""
    if exists(node):
        return
    _add(node)
    peer = ("peer", "name", NODE_END, "netns", node.netns)
    _ip("-n", control.netns, "link", "add", node.name, "type", "veth", *peer)
    _ip("-n", control.netns, "link", "set", node.name, "master", SWITCH, "up")
    _ip("-n", control.netns, "route", "replace", str(pods_of(index)), "via", node.address)
    _ip("-n", node.netns, "address", "add", f"{node.address}/{MACHINES.prefixlen}", "dev", NODE_END)
    _ip("-n", node.netns, "link", "set", NODE_END, "up")
    _ip("-n", node.netns, "route", "add", "default", "via", control.address)
    for other, machine in others.items():
        _ip("-n", node.netns, "route", "add", str(pods_of(other)), "via", machine.address)


def disconnect(machine: Machine) -> None:
    """Remove a machine's network namespace with its cable; nothing where there is none."""
    if not exists(machine):
        return
    for end in (NODE_END, CONTROL_END):
        # The kernel would remove it with the namespace, but some time later, and its other end has its name until then.
        with suppress(Failed):  # it is not there, or what was the namespace is a file that a crash left
            _ip("-n", machine.netns, "link", "delete", end)
    _ip("netns", "delete", machine.netns)


def exists(machine: Machine) -> bool:
    """Whether the machine has its network namespace."""
    return Path("/run/netns", machine.netns).exists()


def clash() -> str | None:
    """What else of this machine uses one of the cluster's networks, or nothing."""
    for route in json.loads(_ip("-json", "-4", "route")):
        if route["dst"] == "default":
            continue
        taken = IPv4Network(route["dst"], strict=False)
        for network in NETWORKS:
            if taken.overlaps(network):
                return f"{network} is in use: {taken} on {route.get('dev', 'no device')}"
    return None


def _add(machine: Machine) -> None:
    _ip("netns", "add", machine.netns)
    _ip("-n", machine.netns, "link", "set", "lo", "up")
    _sysctl(machine, "net.ipv4.ip_forward", 1)


def _sysctl(machine: Machine, name: str, value: int) -> None:
    run("nsenter", f"--net=/run/netns/{machine.netns}", "sysctl", "--quiet", "--write", f"{name}={value}")


def _ip(*arguments: str) -> str:
    return run("ip", *arguments)
