import json

import pytest

from tools.cluster import network


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
