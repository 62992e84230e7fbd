import json

import pytest

from tools.cluster import network
from tools.cluster.control_plane import CONTROL
from tools.cluster.errors import Failed


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ({"dst": "default", "dev": "eth0"}, None),
        ({"dst": "192.0.2.0/24", "dev": "eth0"}, None),
        ({"dst": "10.0.0.0/8", "dev": "vpn0"}, "10.89.0.0/24 is in use: 10.0.0.0/8 on vpn0"),
        ({"dst": "10.96.7.1", "dev": "tun0"}, "10.96.0.0/16 is in use: 10.96.7.1/32 on tun0"),
    ],
)
def test_a_network_that_is_in_use_is_named(
    route: dict[str, str], problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_ip", lambda *words: json.dumps([route]))
    assert network.clash() == problem


def test_the_networks_are_apart() -> None:
    assert not network.PODS.overlaps(network.SERVICES)
    assert not network.MACHINES.overlaps(network.PODS)
    assert network.pods_of(2).subnet_of(network.PODS)


def test_a_machines_cable_goes_at_once_and_before_its_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel removes what is in a namespace later: `make cluster-down` would find the host's end left behind."""
    done: list[str] = []

    def ip(*words: str) -> str:
        if words[-1] == "eth0":  # a node has one, control has not
            raise Failed("Cannot find device")
        done.append(" ".join(words))
        return ""

    monkeypatch.setattr(network, "_ip", ip)
    monkeypatch.setattr(network, "exists", lambda machine: True)
    network.disconnect(CONTROL)
    assert done == ["-n llms-control link delete host", "netns delete llms-control"]
