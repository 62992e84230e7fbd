"""A client that sends bytes of its own choice, as no HTTP library would."""

import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import IO, Any, cast
from urllib.parse import urlsplit

from tests.serve_apps.gateway.servers import PATIENCE_S


class _Kept(io.BufferedReader):
    """A response closes what it was read from; the next one comes on the same connection."""

    def close(self) -> None:
        pass


@dataclass
class Reply:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """A connection to a server."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._incoming = _Kept(socket.SocketIO(connection, "r"))

    def send(self, data: bytes) -> None:
        """Send ``data`` as it is."""
        self._connection.sendall(data)

    def line(self) -> bytes:
        """The next line the server sends, whatever it is part of."""
        return self._incoming.readline().strip()

    def reply(self) -> Reply | None:
        """The next response; None if the server closed the connection instead."""
        if not self._incoming.peek(1):
            return None
        response = HTTPResponse(cast(socket.socket, _Source(self._incoming)))
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, headers, response.read())

    def replies(self) -> list[Reply]:
        """Every response until the server closes the connection."""
        return list(iter(self.reply, None))


@dataclass
class _Source:
    incoming: IO[bytes]

    def makefile(self, *_: Any) -> IO[bytes]:
        return self.incoming


def post(path: str, key: str, body: bytes) -> bytes:
    """A request with JSON and an API key."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json"
    return f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def connected(url: str) -> Iterator[Wire]:
    """A connection to the server at ``url``."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port or 80), timeout=PATIENCE_S) as connection:
        yield Wire(connection)
