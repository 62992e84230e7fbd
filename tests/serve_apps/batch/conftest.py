"""A batch app and the gateway it asks, each a real server on loopback, and OpenAI's client."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch

from serve_apps.batch.config import BatchSettings
from serve_apps.batch.objects import OVER
from serve_apps.common.protocol import INTERNAL_HEADER, TENANT_HEADER
from tests.serve_apps.batch.fake_gateway import TOKEN, FakeGateway
from tests.serve_apps.batch.replica import Recorded, replica_of
from tests.serve_apps.gateway.redis import redis_server  # noqa: F401  # a fixture
from tests.serve_apps.gateway.servers import PATIENCE_S, serving

CHAT = "/v1/chat/completions"


def line(custom_id: str, **changes: Any) -> dict[str, Any]:
    """A line of an input file, whose answer is its custom id."""
    body = {"model": "chat", "messages": [{"role": "user", "content": custom_id}]}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body, **changes}


def jsonl(*lines: dict[str, Any]) -> bytes:
    """An input file."""
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a replica reads: the internal credential, and Redis' password."""
    (tmp_path / "token").write_text(TOKEN)
    return tmp_path


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """Where files and batches are."""
    return f"file://{tmp_path}/storage"


@pytest.fixture
def gateway() -> FakeGateway:
    """The gateway's behaviour; ``gateway_url`` serves it."""
    return FakeGateway()


@pytest.fixture
def gateway_url(gateway: FakeGateway) -> Iterator[str]:
    """Where the gateway answers."""
    with serving(gateway) as url:
        yield url


@dataclass
class BatchApp:
    """OpenAI's client for one tenant of a running batch app."""

    url: str
    client: openai.OpenAI
    observed: Recorded

    def upload(self, content: bytes, **more: Any) -> str:
        return self.client.files.create(file=("in.jsonl", content), purpose="batch", **more).id

    def start(self, content: bytes, endpoint: Any = CHAT, window: Any = "24h", **more: Any) -> Batch:
        return self.client.batches.create(
            input_file_id=self.upload(content), endpoint=endpoint, completion_window=window, **more
        )

    def ended(self, batch: Batch, patience_s: float = PATIENCE_S) -> Batch:
        deadline = time.monotonic() + patience_s
        while (batch := self.client.batches.retrieve(batch.id)).status not in OVER:
            assert time.monotonic() < deadline, batch
            time.sleep(0.02)
        return batch

    def records(self, file_id: str | None) -> dict[str, dict[str, Any]]:
        """The lines of a file by their custom id, each of which it has once."""
        assert file_id
        lines = [json.loads(one) for one in self.client.files.content(file_id).text.splitlines()]
        found = {one["custom_id"]: one for one in lines}
        assert len(found) == len(lines)
        return found


@contextmanager
def client_of(url: str, tenant: str = "acme") -> Iterator[openai.OpenAI]:
    """A client that poses as the gateway."""
    headers = {INTERNAL_HEADER: TOKEN, TENANT_HEADER: tenant}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, default_headers=headers) as client:
        yield client


@pytest.fixture
def batch_app(gateway_url: str, storage: str, folder: Path) -> Iterator[Callable[..., BatchApp]]:
    """Starts a batch app: ``batch_app(concurrency=4)``; its settings, or what else ``replica_of`` takes."""
    with ExitStack() as stack:

        def start(
            redis_url: str = "", clock: Callable[[], float] = time.time, lease_s: float = 60, **settings: Any
        ) -> BatchApp:
            replica = replica_of(gateway_url, storage, folder, redis_url, BatchSettings(**settings), clock, lease_s)
            url = stack.enter_context(serving(replica.app, lifespan="on"))
            return BatchApp(url, stack.enter_context(client_of(url)), replica.observed)

        yield start
