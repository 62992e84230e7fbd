"""A gateway and an upstream, each a real server on a loopback port."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from uvicorn.protocols.http import auto

from serve_apps.common.secrets import ApiKeys, InternalCredential, UpstreamKeys, new_api_key
from serve_apps.gateway import compat, telemetry
from serve_apps.gateway.auth import Authenticator
from serve_apps.gateway.config import GatewayArgs
from serve_apps.gateway.ingress import Ingress
from tests.serve_apps.gateway.recorded_metrics import RecordedMetrics
from tests.serve_apps.gateway.redis import RedisServer, redis_server  # noqa: F401  # a fixture
from tests.serve_apps.gateway.servers import PATIENCE_S, Behaviour, Upstream, serving

INTERNAL_TOKEN = "internal-token"


@pytest.fixture(autouse=True)
def _metrics_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics are told almost at once."""
    monkeypatch.setattr(telemetry, "TOLD_EVERY_S", 0.02)


@pytest.fixture(autouse=True)
def _stock_server() -> Iterator[None]:
    """What ``compat.own_server`` puts in place is taken back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "AutoHTTPProtocol", auto.AutoHTTPProtocol)
        yield


@pytest.fixture
def upstream() -> Iterator[Callable[[Behaviour], tuple[Upstream, str]]]:
    """Starts upstreams; each comes with its URL."""
    with ExitStack() as stack:

        def start(behaviour: Behaviour) -> tuple[Upstream, str]:
            server = Upstream(behaviour)
            url = stack.enter_context(serving(server))
            stack.callback(server.release.set)
            return server, url

        yield start


@dataclass
class GatewayServer:
    """A running gateway and a client that holds a key of tenant acme."""

    url: str
    key: str
    ingress: Ingress
    client: httpx.Client
    metrics: RecordedMetrics = field(default_factory=RecordedMetrics)

    def chat(self, **extra: Any) -> httpx.Response:
        """Ask the model ``chat``."""
        return self.client.post("/v1/chat/completions", json={"model": "chat", **extra})


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Callable[..., GatewayServer]]:
    """Starts gateways: ``gateway(models, table, **args)``, where ``models`` and ``table`` are of the routing table."""
    made = new_api_key("acme")
    (tmp_path / "api-keys").mkdir()
    (tmp_path / "api-keys" / "acme").write_text(made.record)
    (tmp_path / "token").write_text(INTERNAL_TOKEN)
    with ExitStack() as stack:
        # Here, too, as other folders' tests have this fixture without _stock_server.
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(auto, "AutoHTTPProtocol", auto.AutoHTTPProtocol)

        def start(
            models: dict[str, Any] | None,
            table: dict[str, Any] | None = None,
            *,
            redis: RedisServer | None = None,
            **args: Any,
        ) -> GatewayServer:
            gateway_args = GatewayArgs.model_validate(args | ({"redis": redis.url} if redis else {}))
            credential = InternalCredential(tmp_path / "token")
            metrics = RecordedMetrics()
            ingress = Ingress(
                gateway_args,
                authenticator=Authenticator(gateway_args.auth, ApiKeys(tmp_path / "api-keys"), credential),
                credential=credential,
                serve_metrics=metrics.module(),
                upstream_keys=UpstreamKeys(tmp_path / "upstreams"),
                redis_password=redis.password_file if redis else None,
            )
            compat.own_server(gateway_args.write_timeout_s)
            if models is not None:
                ingress.route_by({"models": models, **(table or {})})
            url = stack.enter_context(serving(ingress, lifespan="on"))
            client = httpx.Client(
                base_url=url, headers={"authorization": f"Bearer {made.key}"}, timeout=PATIENCE_S, trust_env=False
            )
            return GatewayServer(url, made.key, ingress, stack.enter_context(client), metrics)

        yield start


def chat_at(url: str) -> dict[str, Any]:
    """A table with one model, ``chat``, at ``url``."""
    return {"chat": {"url": url, "task": "generate"}}
