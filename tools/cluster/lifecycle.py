"""Starting the cluster, and taking nodes away and giving them back."""

from tools.cluster import cleanup, control_plane, definitions, loading, requirements, volumes
from tools.cluster.control_plane import CONTROL
from tools.cluster.errors import Failed
from tools.cluster.node import NODES, Node
from tools.cluster.progress import step
from tools.gotools import binary

PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "coredns",
    "kuberay-operator",
    "kubectl",
)


def up(gpus: int | None = None) -> None:
    """Start what does not run of the cluster; ``gpus`` is how many each node claims to have.

    Raises:
        Unsuitable: This machine cannot run it.
        Failed: A part did not start.
        ToolUnavailable: A program could not be built.
    """
    requirements.check_root()
    if not CONTROL.alive("pid1"):
        if cleanup.leftovers():
            with step("removing what an earlier cluster left"):
                end()
        requirements.check()
    for program in PROGRAMS:
        binary(program)
    with step("control plane"):
        control_plane.start([node.name for node in NODES])
    with step("nodes"):
        for node in NODES:
            _start(node)
        control_plane.start_proxy(NODES[0].name)
    with step("custom resources"):
        definitions.learn_custom_resources()
    with step("KubeRay's operator and its webhook"):
        volumes.make_folders()
        definitions.apply(definitions.basics())
        control_plane.start_operator()
        definitions.apply([definitions.webhook()])
        control_plane.check()
    with step("nodes Ready"):
        for node in NODES:
            node.wait_until_ready()
    loading.ensure("pause")
    volumes.reopen()
    if gpus is not None:
        for node in NODES:
            node.give_gpus(gpus)


def running() -> bool:
    """Whether there is a cluster that answers."""
    return CONTROL.alive("pid1") and control_plane.ready()


def end() -> None:
    """Remove the cluster.

    Raises:
        Failed: Something of it is left.
    """
    if left := cleanup.clean():
        raise Failed("left behind:\n" + "\n".join(f"  {line}" for line in left))


def lose(node: Node) -> None:
    """Lose a node at once, as by a power failure; its pods are gone, and Kubernetes finds out by itself.

    Raises:
        Failed: It is not up.
    """
    if not node.machine.alive("pid1"):
        raise Failed(f"{node.name} is not up; `python -m tools.cluster join {node.name}` starts it")
    with step(f"losing {node.name}"):
        node.lose()


def join(node: Node) -> None:
    """Bring a lost node back.

    Raises:
        Failed: The cluster is not up, or the node is not Ready in time.
    """
    if not running():
        raise Failed("the cluster is not up; `make cluster` starts it")
    with step(f"{node.name} Ready"):
        _start(node)
        node.wait_until_ready()


def _start(node: Node) -> None:
    if not node.machine.alive("pid1"):
        node.lose()  # what a crash left of it
    node.start()
