import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from bench.gateway import standstill
from bench.gateway.standstill import others_still
from bench.gateway.systems import System

PATIENCE_S = 30

Node = Callable[[], list[psutil.Process]]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Node]]:
    """Starts nodes of one process each."""
    monkeypatch.setattr(standstill, "CATCHES_UP_S", 0)
    started: list[subprocess.Popen[bytes]] = []

    def one() -> Node:
        process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        started.append(process)
        return lambda: [psutil.Process(process.pid)]

    yield one
    for process in started:
        process.kill()
        process.communicate()


def system(name: str, node: Node | None) -> System:
    return System(name, name, 1, dict, node=node)


def wait_until(node: Node, *, still: bool) -> None:
    """Wait until the kernel has made a node stand still, or go on."""
    deadline = time.monotonic() + PATIENCE_S
    while (node()[0].status() == psutil.STATUS_STOPPED) is not still:
        assert time.monotonic() < deadline, still
        time.sleep(0.01)


def test_only_the_node_of_what_is_measured_goes_on(start: Callable[[], Node]) -> None:
    ours, theirs = start(), start()
    compared = [system("ours", ours), system("ours-standalone", ours), system("stock", theirs), system("router", None)]
    for measured, other in zip(compared[:3], [theirs, theirs, ours], strict=True):
        with others_still(measured, compared):
            wait_until(other, still=True)
            assert measured.node is not None
            wait_until(measured.node, still=False)
        wait_until(other, still=False)


def test_what_is_not_on_ray_is_measured_beside_what_it_is_compared_with(start: Callable[[], Node]) -> None:
    ours, router = start(), system("router", None)
    with others_still(router, [system("ours", ours), router]):
        wait_until(ours, still=False)


def test_a_measurement_that_fails_leaves_nothing_still(start: Callable[[], Node]) -> None:
    ours, theirs = start(), start()
    measured = system("ours", ours)
    with pytest.raises(KeyboardInterrupt), others_still(measured, [measured, system("stock", theirs)]):
        raise KeyboardInterrupt
    wait_until(theirs, still=False)


def test_a_process_that_ends_meanwhile_keeps_no_other_still(start: Callable[[], Node]) -> None:
    ours, ending, staying = start(), start(), start()
    measured = system("ours", ours)
    both = system("stock", lambda: [*ending(), *staying()])
    with others_still(measured, [measured, both]):
        wait_until(staying, still=True)
        process = ending()[0]
        process.kill()
        process.wait(PATIENCE_S)
    wait_until(staying, still=False)
