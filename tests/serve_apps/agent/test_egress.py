import asyncio
import socket
from ipaddress import ip_address
from typing import Any

import httpx2
import pytest

from serve_apps.agent import egress
from serve_apps.agent.egress import Egress, Forbidden, TooMuch, is_public
from tests.serve_apps.agent.tool_server import ToolServer

LOOPBACK = ("127.0.0.0/8",)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_a_public_address_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",  # metadata of AWS, Google and others
        "168.63.129.16",  # of Azure
        "100.100.100.200",  # of Alibaba
        "192.0.0.192",  # of Oracle
        "100.64.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fd00:ec2::254",  # of AWS
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:a9fe:a9fe",
        "::10.0.0.1",
        "::ffff:0:a00:1",
        "2002:a00:1::",
        "64:ff9b::a00:1",
        "64:ff9b:1::808:808",
        "2001:0:4136:e378::",
    ],
)
def test_any_other_is_not_public_whatever_its_disguise(address: str) -> None:
    assert not is_public(ip_address(address))


def get(url: str, allowed: tuple[str, ...] = (), max_bytes: int = 10_000) -> httpx2.Response:
    async def ask() -> httpx2.Response:
        async with egress.client(allowed, max_bytes, 10, {}) as client:
            return await client.get(url)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0.0.0.0", "169.254.169.254"],
)
def test_a_host_inside_is_not_reached_however_it_is_written(host: str) -> None:
    with pytest.raises(Forbidden, match="is not a public host; tools may not reach it"):
        get(f"http://{host}:1/")


def test_a_host_in_an_allowed_network_is_reached(tool_url: str) -> None:
    assert get(f"{tool_url}/hello", LOOPBACK).json()["path"] == "/hello"
    with pytest.raises(Forbidden):
        get(f"{tool_url}/hello", ("10.0.0.0/8",))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """What names resolve to, question by question; a name is asked for no more often than it has answers."""
    answers: dict[str, list[list[str]]] = {}

    def resolve(host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        if host not in answers:
            return real(host, port, type=socket.SOCK_STREAM)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers[host].pop(0)]

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return answers


def test_a_name_is_resolved_once_and_the_checked_address_is_the_one_connected_to(
    names: dict[str, list[list[str]]], tool_url: str
) -> None:
    names["rebinding.example.com"] = [["127.0.0.1"]]  # a second question would fail
    port = tool_url.rpartition(":")[2]
    assert get(f"http://rebinding.example.com:{port}/hello", LOOPBACK).status_code == 200


def test_a_name_with_a_public_and_a_private_address_is_refused(names: dict[str, list[list[str]]]) -> None:
    names["both.example.com"] = [["8.8.8.8", "10.0.0.1"]]
    with pytest.raises(Forbidden, match=r"both\.example\.com is not a public host"):
        get("http://both.example.com/")


def test_a_redirect_is_not_followed(tool_url: str) -> None:
    assert get(f"{tool_url}/redirect", LOOPBACK).status_code == 307


def test_an_answer_ends_at_its_limit(tool_url: str) -> None:
    with pytest.raises(TooMuch, match="the answer is larger than 10000 bytes"):
        get(f"{tool_url}/huge", LOOPBACK)
    assert len(get(f"{tool_url}/huge", LOOPBACK, 1_000_000).content) == 1_000_000


def test_a_compressed_answer_is_not_unpacked(tool_url: str, tool_server: ToolServer) -> None:
    with pytest.raises(TooMuch, match="compressed"):
        get(f"{tool_url}/bomb", LOOPBACK)
    assert tool_server.asked[0]["headers"]["accept-encoding"] == "identity"


def test_no_proxy_of_the_environment_is_used(tool_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert get(f"{tool_url}/hello", LOOPBACK).status_code == 200


def test_no_socket_file_is_opened() -> None:
    with pytest.raises(Forbidden, match="TCP only"):
        asyncio.run(Egress(()).connect_unix_socket("/run/docker.sock"))
