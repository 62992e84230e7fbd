"""A node: containerd, the kubelet and kube-proxy on a machine of its own."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from tools.cluster import cgroups, network, state
from tools.cluster.certificates import CA, kubeconfig_of
from tools.cluster.control_plane import CONTROL, kube_proxy
from tools.cluster.errors import Failed
from tools.cluster.kubectl import kubectl
from tools.cluster.machine import DNS_ADDRESS, Machine
from tools.cluster.progress import wait_until
from tools.gotools import binary
from tools.images.image import reference

#: Where containerd's clients look for it; each machine has a /run of its own.
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CNI_PROGRAMS = "/usr/lib/cni"
#: Kubernetes' containers and images in containerd.
NAMESPACE = "k8s.io"
#: A busy machine takes its time.
START_TIMEOUT_S = 180
READY_TIMEOUT_S = 300


@dataclass(frozen=True)
class Node:
    """One node; ``index`` decides its addresses."""

    index: int
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name in Kubernetes, and its machine's."""
        return f"node{self.index}"

    @property
    def machine(self) -> Machine:
        """What it runs on."""
        return Machine(self.name, f"10.89.0.1{self.index}")

    @property
    def cgroup(self) -> str:
        """The root of its pods' cgroups."""
        return self.machine.netns

    def start(self) -> None:
        """Start what does not run of it.

        Raises:
            Failed: A process ended, or containerd did not answer.
        """
        others = {other.index: other.machine for other in NODES if other is not self}
        network.connect_node(self.machine, self.index, CONTROL, others)
        cgroups.make(self.cgroup)
        rebooted = not self.machine.alive("pid1")
        self.machine.boot()
        self._configure()
        self._start_containerd()
        if rebooted:
            self._forget_containers()
        self.machine.start("kubelet", kubelet(self))
        self.machine.start("kube-proxy", kube_proxy(self.name))

    def ready(self) -> bool:
        """Whether Kubernetes calls it Ready, and by a word of the kubelet that runs now."""
        ready = '.status.conditions[?(@.type=="Ready")]'
        path = f"jsonpath={{{ready}.status}} {{{ready}.lastHeartbeatTime}}"
        status, _, said = kubectl("get", "node", self.name, "--output", path, check=False).partition(" ")
        return status == "True" and datetime.fromisoformat(said).timestamp() >= int(self.machine.started("kubelet"))

    def wait_until_ready(self) -> None:
        """Wait for Ready.

        Raises:
            Failed: A process ended, or it is not Ready in time.
        """

        def check() -> None:
            for process in ("containerd", "kubelet", "kube-proxy"):
                self.machine.check(process)

        wait_until(self.ready, f"{self.name} Ready (see {self.machine.log('kubelet')})", READY_TIMEOUT_S, check)

    def lose(self) -> None:
        """Cut its power and its cable. Its disk stays, for `start`."""
        self.machine.kill()
        network.disconnect(self.machine)
        cgroups.remove(self.cgroup)

    def give_gpus(self, count: int) -> None:
        """Have the node claim ``count`` GPUs. Pods that ask for them are scheduled; there is no GPU in them."""
        fields = ("capacity", "allocatable")
        patch = [{"op": "add", "path": f"/status/{name}/nvidia.com~1gpu", "value": str(count)} for name in fields]
        kubectl("patch", "node", self.name, "--subresource=status", "--type=json", f"--patch={json.dumps(patch)}")

    def ctr(self, *arguments: str) -> str:
        """What containerd's own client prints, for Kubernetes' images and containers."""
        return self.machine.run("ctr", "--namespace", NAMESPACE, *arguments)

    def _file(self, name: str) -> Path:
        return self.machine.folder / name

    def _configure(self) -> None:
        self._file("empty").touch()
        self._file("cni").mkdir(exist_ok=True)
        self._file("cni/10-cluster.conflist").write_text(json.dumps(cni_config(self)))
        self._file("containerd.toml").write_text(containerd_config(self))
        self._file("kubelet.yaml").write_text(yaml.safe_dump(kubelet_config(self)))

    def _start_containerd(self) -> None:
        state.images(self.name).mkdir(parents=True, exist_ok=True)
        self.machine.start("containerd", ["containerd", f"--config={self._file('containerd.toml')}"])
        wait_until(
            lambda: self.machine.succeeds("ctr", "version"),
            f"containerd on {self.name}",
            START_TIMEOUT_S,
            lambda: self.machine.check("containerd"),
        )

    def _forget_containers(self) -> None:
        """Remove what the image store still holds of containers of a former life; none of them runs."""
        if not (found := self.ctr("containers", "list", "--quiet").split()):
            return
        self.ctr("containers", "remove", *found)
        self.machine.stop("containerd")  # it has read them already
        for kind in ("sandboxes", "containers"):
            shutil.rmtree(state.images(self.name) / "io.containerd.grpc.v1.cri" / kind, ignore_errors=True)
        self._start_containerd()


def kubelet(node: Node) -> list[str]:
    """What runs the node's pods."""
    return [
        str(binary("kubelet")),
        f"--config={node.machine.folder / 'kubelet.yaml'}",
        f"--kubeconfig={kubeconfig_of(node.name)}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.machine.address}",
        f"--node-labels={','.join(f'{key}={value}' for key, value in node.labels.items())}",
        f"--cert-dir={node.machine.folder / 'kubelet-certificates'}",
    ]


def kubelet_config(node: Node) -> dict[str, Any]:
    """The kubelet's configuration file."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # Whoever asks it for logs or a shell must be allowed to by the API server.
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(CA.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": True,
        "cgroupRoot": f"/{node.cgroup}",
        "enforceNodeAllocatable": [],
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(node.machine.folder / "empty"),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        # A word every three seconds, where ten are usual: a busy machine may swallow some before a node counts as lost.
        "nodeLeaseDurationSeconds": 12,
        # Pods see a changed Secret after 10 seconds; after a minute and a half is usual.
        "syncFrequency": "10s",
        "failSwapOn": False,
        "failCgroupV1": False,
        # One disk and one memory for everything: leave judging them to the host. A disk that is full for a moment is no
        # reason to remove images, as that of every pod's sandbox is: there is no registry to get them back from.
        "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
    }


def containerd_config(node: Node) -> str:
    """Containerd's configuration file."""
    return f"""version = 2
root = "{state.images(node.name)}"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{reference("pause")}"
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI_PROGRAMS}"
  conf_dir = "{node.machine.folder / "cni"}"
"""


def cni_config(node: Node) -> dict[str, Any]:
    """How a pod gets its network: a bridge on the node, addresses from the node's own range."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": str(network.pods_of(node.index))}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,  # the other machines have routes to pods
        "hairpinMode": True,  # a pod may reach itself by its Service
        "ipam": addresses,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "cluster", "plugins": [bridge, ports]}


#: The first one holds the models: their image, of several GB, is on one node only.
NODES = (Node(1, {"llm-serving/models": "true"}), Node(2))


def named(name: str) -> Node:
    """The node of this name.

    Raises:
        Failed: There is none.
    """
    for node in NODES:
        if node.name == name:
            return node
    raise Failed(f"no node {name!r}; there are {', '.join(node.name for node in NODES)}")
