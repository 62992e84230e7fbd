"""A real Redis on a loopback port, which a test can kill, hang and start again."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from serve_apps.gateway.store import Store
from tests.serve_apps.gateway.servers import PATIENCE_S
from tools.ports import free_port

PASSWORD = "a-password"
#: Patience with Redis where a busy machine must not look like a Redis that is down, in seconds.
UNHURRIED_S = 5.0


@dataclass
class RedisServer:
    """A ``redis-server`` with a password, which keeps nothing on disk."""

    binary: str
    password_file: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens, without the password."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, empty; it answers when this returns."""
        configuration = f'bind 127.0.0.1\nport {self.port}\nrequirepass {PASSWORD}\nsave ""\nlogfile /dev/null\n'
        self.process = subprocess.Popen([self.binary, "-"], stdin=subprocess.PIPE, cwd=self.password_file.parent)
        assert self.process.stdin
        self.process.stdin.write(configuration.encode())
        self.process.stdin.close()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.ConnectionError:
                assert self.process.poll() is None, "redis-server ended at once"
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.01)

    def kill(self) -> None:
        """End it as a crash would; connections to it are reset."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def hang(self) -> None:
        """Stop it: connections stay, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        self._signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A client beside the gateway's."""
        return redis.Redis(port=self.port, password=PASSWORD, decode_responses=True)

    def store(self, patience_s: float = UNHURRIED_S, on_down: Callable[[bool], None] | None = None) -> Store:
        """The gateway's client, patient, and quick to see that Redis is back."""
        return Store(self.url, self.password_file, on_down=on_down, patience_s=patience_s, probe_s=0.05)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process
        os.kill(self.process.pid, number)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, started and empty."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.fail("redis-server is missing: make packages, or apt-get install redis-server", pytrace=False)
    password_file = tmp_path / "redis-password"
    password_file.write_text(f"{PASSWORD}\n")
    server = RedisServer(binary, password_file)
    server.start()
    yield server
    server.kill()


def with_stores(redis_server: RedisServer, count: int, story: Callable[..., Coroutine[Any, Any, None]]) -> None:
    """Play ``story(store, …)`` with so many clients of one Redis."""

    async def play() -> None:
        stores = [redis_server.store() for _ in range(count)]
        try:
            await story(*stores)
        finally:
            await asyncio.gather(*(store.close() for store in stores))

    asyncio.run(play())


async def until_back(store: Store) -> None:
    """Wait until the store has found its Redis again."""
    async with asyncio.timeout(PATIENCE_S):
        while store.down:
            await asyncio.sleep(0.01)
