"""The front door of the gateway's application."""

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve import metrics as serve_metrics

from serve_apps.common import logging
from serve_apps.common.secrets import ApiKeys, InternalCredential
from serve_apps.gateway.auth import Authenticator
from serve_apps.gateway.config import GatewayArgs
from serve_apps.gateway.exchange import Telemetry
from serve_apps.gateway.ingress import Ingress

#: Requests Serve lets into a replica beyond those the gateway admits, so that it is the gateway that refuses, in
#: OpenAI's shape, and so that the calls of our own pipelines have room.
HEADROOM = 128


class Gateway:
    """One replica of the gateway."""

    def __init__(self, args: GatewayArgs) -> None:
        logging.configure()
        credential = InternalCredential()
        credential.value()  # fail now, not at the first request
        self._ingress = Ingress(
            args,
            authenticator=Authenticator(args.auth, ApiKeys(), credential),
            credential=credential,
            telemetry=Telemetry(serve_metrics),
            echoes_request_id=False,  # Serve does
        )

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Put a new routing table in force; Serve calls it after the start and on every change."""
        self._ingress.route_by(user_config)

    def __serve_build_asgi_app__(self) -> Ingress:
        """The ASGI app Serve hands requests to."""
        return self._ingress


def build_app(args: GatewayArgs) -> Application:
    """The gateway. Its routing table is the deployment's ``user_config``; until there is one, it is not ready."""
    deployment = serve.deployment(name="Gateway", max_ongoing_requests=args.max_concurrent_requests + HEADROOM)(
        serve.ingress()(Gateway)
    )
    application: Application = deployment.bind(args)
    return application
