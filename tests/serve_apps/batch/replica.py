"""``python -m tests.serve_apps.batch.replica GATEWAY STORAGE FOLDER [REDIS]`` serves a batch app until it is killed.

It prints its URL. FOLDER has the files ``token`` (the internal credential) and ``redis-password``.
"""

import asyncio
import sys
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from serve_apps.batch.batches import Batches
from serve_apps.batch.config import BatchSettings
from serve_apps.batch.execution import TenantSender, Workplace
from serve_apps.batch.files import Files
from serve_apps.batch.ingress import build_asgi
from serve_apps.batch.leases import Leases, StoredLeases
from serve_apps.batch.objects import Status
from serve_apps.batch.pace import Paces
from serve_apps.batch.pieces import Left, Sending, Sent
from serve_apps.batch.storage import Storage
from serve_apps.batch.worker import Rhythm, Worker
from serve_apps.common import redis
from serve_apps.common.gateway_client import GatewayClient
from serve_apps.common.middleware import ASGIApp
from serve_apps.common.secrets import InternalCredential
from tests.serve_apps.gateway.servers import PATIENCE_S, serving

#: Of a replica that is killed and the one that goes on: short enough to wait for, and no busy machine misses it.
SHORT_LEASE_S = 3.0
RHYTHM = Rhythm(renew_s=0.2, look_s=0.1)
KEEP_S = 0.1


@dataclass
class Recorded:
    """An observer that remembers."""

    refused: int = 0
    answered: int = 0
    endings: list[Status] = field(default_factory=list)

    def replied(self, *, refused: bool) -> None:
        self.refused += refused
        self.answered += not refused

    def ended(self, status: Status) -> None:
        self.endings.append(status)


class SendersHere:
    """Senders that are tasks of the replica itself, each with one of the pieces at a time."""

    def __init__(self, storage: Storage, gateway: GatewayClient) -> None:
        self.asked: list[Left] = []
        self.closed = 0
        self._storage = storage
        self._gateway = gateway

    async def answers(self, left: Left) -> AsyncGenerator[Sent, None]:
        self.asked.append(left)
        pieces = iter(left.pieces)
        done: asyncio.Queue[Sent] = asyncio.Queue()

        async def work() -> None:
            sending = Sending(self._storage, TenantSender(self._gateway, left.tenant), left)
            for piece in pieces:
                await done.put(await sending.send(*piece))

        workers = [asyncio.create_task(work()) for _ in range(left.senders)]
        try:
            for _ in left.pieces:
                yield await done.get()
        finally:
            self.closed += 1
            await redis.end(workers)


@dataclass
class Replica:
    """A batch app, and what it is made of."""

    app: ASGIApp
    place: Workplace
    gateway: GatewayClient
    observed: Recorded
    senders: SendersHere


def replica_of(
    gateway_url: str,
    storage_uri: str,
    folder: Path,
    redis_url: str = "",
    settings: BatchSettings | None = None,
    clock: Callable[[], float] = time.time,
    lease_s: float = 60,
) -> Replica:
    """A replica that tells quickly that it lives."""
    credential = InternalCredential(folder / "token")
    gateway = GatewayClient(gateway_url, credential, PATIENCE_S)
    storage, observed, in_force = Storage(storage_uri), Recorded(), settings or BatchSettings()
    files = Files(storage, clock)
    senders = SendersHere(storage, gateway)
    place = Workplace(
        files,
        Batches(storage, files, clock),
        lambda tenant: TenantSender(gateway, tenant),
        Paces(lambda: in_force.concurrency),
        lambda: in_force,
        observed,
        senders,
        KEEP_S,
        clock,
    )
    name = uuid.uuid4().hex
    leases: Leases = StoredLeases(storage, name, lease_s)
    if redis_url:
        client = redis.connect(redis_url, folder / "redis-password")
        leases = redis.Leases(client, name, lambda batch: f"llm-batch:{batch}", lease_s)
    app = build_asgi(place, Worker(place, leases, RHYTHM), gateway, credential)
    return Replica(app, place, gateway, observed, senders)


if __name__ == "__main__":
    running = replica_of(sys.argv[1], sys.argv[2], Path(sys.argv[3]), "".join(sys.argv[4:]), lease_s=SHORT_LEASE_S)
    with serving(running.app, lifespan="on") as url:
        print(url, flush=True)  # noqa: T201  # for the test that started it
        threading.Event().wait()
