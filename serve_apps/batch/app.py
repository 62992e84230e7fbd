"""The front door of the batch app."""

import os
import uuid
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve import metrics as serve_metrics

from serve_apps.batch.batches import Batches
from serve_apps.batch.config import BatchArgs, BatchSettings
from serve_apps.batch.dataset import RayDataSenders
from serve_apps.batch.execution import TenantSender, Workplace
from serve_apps.batch.files import Files
from serve_apps.batch.ingress import build_asgi
from serve_apps.batch.leases import Leases, StoredLeases
from serve_apps.batch.objects import Status
from serve_apps.batch.pace import Paces
from serve_apps.batch.storage import Storage
from serve_apps.batch.worker import Worker
from serve_apps.common import logging, metrics, redis, secrets
from serve_apps.common.config import accepted
from serve_apps.common.gateway_client import GatewayClient
from serve_apps.common.middleware import ASGIApp
from serve_apps.common.secrets import InternalCredential

_LEASE_PREFIX = "llm-batch:"
#: Added to the niceness of Ray's workers, which is 0 in the chart's pods: the gateway, which shares the cores, has
#: clients who wait.
NICENESS = 10


class RayMetrics:
    """An ``Observer`` that exports what it is told as Ray metrics."""

    def __init__(self) -> None:
        self._replies = metrics.create(metrics.BATCH_REPLIES, serve_metrics)
        self._ended = metrics.create(metrics.BATCH_ENDED, serve_metrics)

    def replied(self, *, refused: bool) -> None:
        """Count a reply to a line."""
        self._replies.inc(tags={"outcome": "refused" if refused else "answered"})

    def ended(self, status: Status) -> None:
        """Count a batch that is over."""
        self._ended.inc(tags={"status": status})


class BatchServer:
    """A replica: the API, and its share of the work."""

    def __init__(self, args: BatchArgs) -> None:
        logging.configure()
        os.nice(NICENESS)  # of this thread, which is the one that works on requests and batches, and its children
        self._credential = InternalCredential()
        self._credential.value()  # fail now, not at the first request
        self._settings: BatchSettings | None = None
        self._gateway = GatewayClient(args.gateway_url, self._credential, args.model_timeout_s)
        storage = Storage(args.storage)
        files = Files(storage)
        self._place = Workplace(
            files,
            Batches(storage, files),
            lambda tenant: TenantSender(self._gateway, tenant),
            Paces(lambda: self._in_force().concurrency),
            self._in_force,
            RayMetrics(),
            RayDataSenders(args),
        )
        self._leases = _leases(args.redis, storage)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Go on with the settings of ``user_config``; ones that are not valid change nothing."""
        self._settings = accepted(BatchSettings, user_config, self._settings)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return build_asgi(self._place, Worker(self._place, self._leases), self._gateway, self._credential)

    def _in_force(self) -> BatchSettings:
        return self._settings or BatchSettings()


def _leases(url: str, storage: Storage) -> Leases:
    replica = uuid.uuid4().hex
    if not url:
        return StoredLeases(storage, replica)
    client = redis.connect(url, secrets.root() / "redis" / "password")
    return redis.Leases(client, replica, lambda batch: f"{_LEASE_PREFIX}{batch}")


def build_app(args: BatchArgs) -> Application:
    """Files and batches as one deployment, a client of the gateway."""
    return serve.deployment(name="Batch")(serve.ingress()(BatchServer)).bind(args)
