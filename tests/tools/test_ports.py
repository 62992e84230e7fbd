import socket

import pytest

from tools import ports


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_RANGE", range(20_000, 20_003))
    monkeypatch.setattr(ports, "_given", set())
    monkeypatch.setattr(ports, "_is_free", lambda _: True)
    assert {ports.free_port() for _ in range(3)} == {20_000, 20_001, 20_002}


def test_a_port_that_somebody_has_on_one_address_is_not_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert not ports._is_free(taken.getsockname()[1])


def test_a_given_port_can_be_listened_at() -> None:
    with socket.create_server(("127.0.0.1", ports.free_port())) as listening:
        assert listening.getsockname()[1] in ports._RANGE
