"""The way out for tools: HTTP to hosts whose addresses were looked at first.

A name is resolved once, every address it has is checked, and the connection goes to an address that was checked, so a
name that means something else a moment later (DNS rebinding) leads nowhere. Redirects are not followed. Answers are
cut off at a size, before they are held.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import httpcore2
import httpx2

Address = IPv4Address | IPv6Address

#: Public to Python, and still no tool's business: IETF's own (Oracle's metadata is there), Azure's metadata, and forms
#: of IPv6 that hold an IPv4 address: compatible, translated, 6to4, local NAT64; last, what was once site-local.
_SPECIAL = [
    ip_network(network)
    for network in (
        *("192.0.0.0/24", "168.63.129.16/32"),
        *("::/96", "::ffff:0:0:0/96", "2002::/16", "64:ff9b:1::/48", "fec0::/10"),
    )
]
#: NAT64 (RFC 6052): an IPv4 address in the last 32 bits, which is what is reached.
_NAT64 = IPv6Network("64:ff9b::/96")


class Forbidden(httpx2.ConnectError):
    """A host that tools may not reach."""


class TooMuch(httpx2.ReadError):
    """An answer above the size limit, or one whose size cannot be told."""


def is_public(address: Address) -> bool:
    """Whether anyone on the internet could be meant, also in the disguises of IPv6."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    special = any(address in network for network in _SPECIAL)
    return address.is_global and not (address.is_multicast or special)


class Egress(httpcore2.AsyncNetworkBackend):
    """Opens connections to allowed addresses only."""

    def __init__(self, allowed_networks: Iterable[str]) -> None:
        self._allowed = [ip_network(network) for network in allowed_networks]
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to one of the host's addresses.

        Raises:
            Forbidden: one of them is not allowed.
            httpcore2.ConnectError: there is none, or none accepts.
        """
        failed: Exception | None = None
        for address in await self.addresses(host, port):
            try:
                return await self._backend.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed or httpcore2.ConnectError(f"{host} has no address")

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        """No tool is on a socket file."""
        raise Forbidden("tools are reached over TCP only")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def addresses(self, host: str, port: int) -> Sequence[Address]:
        """What ``host`` resolves to, all of it allowed.

        Raises:
            Forbidden: one is not; a host that has a public and a private address is up to something.
            httpcore2.ConnectError: it does not resolve.
        """
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} does not resolve") from error
        addresses = list(dict.fromkeys(ip_address(each[4][0]) for each in found))
        for address in addresses:
            if not self._allows(address):
                raise Forbidden(f"{host} is not a public host; tools may not reach it")
        return addresses

    def _allows(self, address: Address) -> bool:
        plain = (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
        return any(plain in network for network in self._allowed) or is_public(address)


class _Transport(httpx2.AsyncHTTPTransport):
    """HTTP over ``Egress``; answers are plain and end at a size."""

    def __init__(self, egress: Egress, max_response_bytes: int) -> None:
        super().__init__(trust_env=False)
        # httpx has no argument for the network backend, so its pool is replaced by one that has.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(trust_env=False), network_backend=egress
        )
        self._max_response_bytes = max_response_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        # Compressed, a small answer may become a huge one.
        request.headers["accept-encoding"] = "identity"
        response = await super().handle_async_request(request)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            raise TooMuch("the answer is compressed, though it should not be")
        if not isinstance(response.stream, httpx2.AsyncByteStream):  # pragma: no cover
            raise TypeError("an asynchronous transport answers with an asynchronous stream")
        response.stream = _Bounded(response.stream, self._max_response_bytes)
        return response


class _Bounded(httpx2.AsyncByteStream):
    """A stream that breaks where it becomes too long."""

    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._stream:
            size += len(part)
            if size > self._max_bytes:
                raise TooMuch(f"the answer is larger than {self._max_bytes} bytes")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


def client(
    allowed_networks: Iterable[str], max_response_bytes: int, timeout_s: float, headers: dict[str, str]
) -> httpx2.AsyncClient:
    """An HTTP client for one tool's calls; neither proxies nor credentials come from the environment."""
    return httpx2.AsyncClient(
        transport=_Transport(Egress(allowed_networks), max_response_bytes),
        headers=headers,
        timeout=timeout_s,
        follow_redirects=False,
        trust_env=False,
    )
