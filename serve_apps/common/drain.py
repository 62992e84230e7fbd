"""``python -m serve_apps.common.drain --seconds N`` lets a Ray worker finish its streams: the pod's preStop hook.

Ray would do the same when it is told to end, but asks the head first and waits for its answer as long as for the
streams: the workers of a RayCluster that is deleted, whose head is gone, would keep their nodes for nothing. Here a
head that stays away ends the wait. Exit status is 0 in any case: what comes next is the end.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: A head that restarts with Redis behind it is back in half of this; one that was deleted never is. In seconds.
HEAD_AWAY_S = 30.0
#: Until a node that can be reached has accepted a connection, in seconds.
CONNECT_TIMEOUT_S = 2.0
POLL_S = 1.0
#: Never refused by Ray, unlike a drain for being idle.
REASON = "DRAIN_NODE_REASON_PREEMPTION"
#: The pod's log: what a hook itself prints is kept nowhere.
LOG = Path("/proc/1/fd/2")


def tell(line: str) -> None:
    """Add a line to the pod's log."""
    with LOG.open("a") as log:
        log.write(f"{line}\n")


@dataclass(frozen=True)
class Raylet:
    """Ray's node process, which ends by itself once it drains and nothing runs on it."""

    pid: int
    node_id: str

    def runs(self) -> bool:
        """Whether it is there and not a process that only waits to be reaped."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False


def find_raylet() -> Raylet | None:
    """The raylet of this pod, or None: it never came up, or has ended."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                program, *arguments = (folder / "cmdline").read_bytes().decode().split("\0")
            except (OSError, UnicodeDecodeError):
                continue  # ended meanwhile
            ids = [one.removeprefix("--node_id=") for one in arguments if one.startswith("--node_id=")]
            if Path(program).name == "raylet" and ids:
                return Raylet(int(folder.name), ids[0])
    return None


class Head:
    """The head, at ``host:port``, as a worker sees it."""

    def __init__(self, address: str, ray: Sequence[str] = (sys.executable, "-m", "ray.scripts.scripts")) -> None:
        self._address = address
        self._ray = ray
        self._seen = time.monotonic()

    @property
    def away(self) -> bool:
        """Whether nobody has answered there for `HEAD_AWAY_S`. Tries once."""
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
        except OSError:
            return time.monotonic() - self._seen >= HEAD_AWAY_S
        self._seen = time.monotonic()
        return False

    def drain(self, node_id: str, seconds: int) -> bool:
        """Have nothing new placed on the node, and Serve take its replicas off it; False if the head did not agree."""
        command = [*self._ray, "drain-node", f"--address={self._address}", f"--node-id={node_id}", f"--reason={REASON}"]
        command += ["--reason-message=The pod ends.", f"--deadline-remaining-seconds={seconds}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=HEAD_AWAY_S, check=False)
        except subprocess.TimeoutExpired:
            return False
        if done.returncode:
            tell(done.stderr.strip())
        return done.returncode == 0


def drain(raylet: Raylet, head: Head, seconds: int) -> str:
    """Drain the node and wait for the end of its raylet, at most ``seconds``; what ended the wait, in words."""
    deadline = time.monotonic() + seconds
    asked = False
    while raylet.runs():
        left = deadline - time.monotonic()
        if left <= 0:
            return f"not drained after {seconds} s"
        if head.away:
            return f"the head was away for {HEAD_AWAY_S:.0f} s"
        asked = asked or head.drain(raylet.node_id, int(left))
        time.sleep(min(POLL_S, left))
    return "drained"


def main(arguments: Sequence[str] | None = None) -> int:
    """Drain this pod's Ray node."""
    parser = argparse.ArgumentParser(description="Let this pod's Ray node finish its streams.")
    parser.add_argument("--seconds", type=int, required=True, help="at most")
    seconds: int = parser.parse_args(arguments).seconds
    raylet, address = find_raylet(), os.environ.get("RAY_ADDRESS", "")
    if raylet and address:
        tell(f"preStop: {drain(raylet, Head(address), seconds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
