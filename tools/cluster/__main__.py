"""``python -m tools.cluster``: a real Kubernetes with KubeRay on this machine."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

from tools.cluster import cleanup, lifecycle, loading, node, requirements, volumes
from tools.cluster.errors import ClusterError
from tools.cluster.state import KUBECONFIG, alone
from tools.gotools import ToolUnavailable, binary
from tools.images.builder import CannotBuild
from tools.images.image import IMAGES


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked; the exit code."""
    asked = parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = asked.command
    try:
        requirements.check_root()
        if command is kubectl:  # it changes nothing that others wait for
            kubectl(asked)
        with alone():
            command(asked)
    except (ClusterError, ToolUnavailable, CannotBuild) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; `make cluster` goes on, `make cluster-down` removes what is there", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    parser = argparse.ArgumentParser(prog="python -m tools.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up_ = commands.add_parser("up", help="start what does not run of the cluster")
    up_.add_argument("--gpus", type=int, metavar="N", help="have each node claim N GPUs, for the scheduler only")
    up_.set_defaults(command=up)
    commands.add_parser("down", help="remove all of it but the image stores").set_defaults(command=down)
    names = [one.name for one in node.NODES]
    for name, command, what in (("lose", lose, "kill a node"), ("join", join, "bring a lost node back")):
        one = commands.add_parser(name, help=what)
        one.add_argument("node", choices=names)
        one.set_defaults(command=command)
    load_ = commands.add_parser("load", help="build images and put them on the nodes")
    load_.add_argument("names", nargs="+", choices=IMAGES, metavar="NAME", help=f"of {', '.join(IMAGES)}")
    load_.set_defaults(command=load)
    commands.add_parser("packages", help="install the Debian packages that are missing").set_defaults(command=packages)
    commands.add_parser("volumes", help="empty and reopen released volumes").set_defaults(command=reopen)
    kubectl_ = commands.add_parser("kubectl", help="kubectl for this cluster, after --")
    kubectl_.add_argument("words", nargs=argparse.REMAINDER)
    kubectl_.set_defaults(command=kubectl)
    return parser


def up(asked: argparse.Namespace) -> None:
    """Start it and say how to use it."""
    start = time.monotonic()
    lifecycle.up(asked.gpus)
    print(f"up in {time.monotonic() - start:.0f} s; kubectl is {binary('kubectl')}", file=sys.stderr)
    print(f"export KUBECONFIG={KUBECONFIG}")


def down(_: argparse.Namespace) -> None:
    """Remove it."""
    if not cleanup.leftovers():
        print("the cluster is not up", file=sys.stderr)
        return
    start = time.monotonic()
    lifecycle.end()
    print(f"down in {time.monotonic() - start:.0f} s: nothing left but the image stores", file=sys.stderr)


def lose(asked: argparse.Namespace) -> None:
    """Lose a node."""
    lifecycle.lose(node.named(asked.node))


def join(asked: argparse.Namespace) -> None:
    """Bring a node back."""
    lifecycle.join(node.named(asked.node))


def load(asked: argparse.Namespace) -> None:
    """Put images on the nodes."""
    loading.load(asked.names)


def packages(_: argparse.Namespace) -> None:
    """Install what is missing."""
    print(requirements.install())


def reopen(_: argparse.Namespace) -> None:
    """Reopen volumes."""
    print("\n".join(volumes.reopen()) or "no volume is released")


def kubectl(asked: argparse.Namespace) -> None:
    """Become kubectl."""
    words = asked.words[1:] if asked.words[:1] == ["--"] else asked.words
    program = str(binary("kubectl"))
    os.execve(program, [program, *words], {**os.environ, "KUBECONFIG": str(KUBECONFIG)})  # noqa: S606 - as is


if __name__ == "__main__":
    sys.exit(main())
