"""The front door of the gateway's application."""

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve import metrics as serve_metrics

from serve_apps.common import logging, secrets, tracing
from serve_apps.common.middleware import ASGIApp
from serve_apps.gateway import compat
from serve_apps.gateway.auth import Authenticator
from serve_apps.gateway.config import GatewayArgs
from serve_apps.gateway.ingress import Ingress
from serve_apps.gateway.oidc import Tokens
from serve_apps.gateway.replicas import Replicas

#: Requests Serve lets into a replica beyond those the gateway admits, so that it is the gateway that refuses, in
#: OpenAI's shape, and so that the calls of our own pipelines have room.
HEADROOM = 128


class Gateway:
    """One replica of the gateway."""

    def __init__(self, args: GatewayArgs) -> None:
        logging.configure()
        tracing.configure()
        compat.own_server(args.write_timeout_s)
        credential = secrets.InternalCredential()
        credential.value()  # fail now, not at the first request
        tokens = Tokens(args.jwt) if args.jwt else None
        self._ingress = Ingress(
            args,
            authenticator=Authenticator(args.auth, secrets.ApiKeys(), credential, tokens),
            credential=credential,
            serve_metrics=serve_metrics,
            replicas=Replicas(compat.follow),
            upstream_keys=secrets.UpstreamKeys(),
            redis_password=secrets.root() / "redis" / "password",
            beside_proxy=compat.listen_beside_proxy if args.bypass_proxy else None,
        )

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Put a new routing table in force; Serve calls it after the start and on every change."""
        self._ingress.route_by(user_config)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The ASGI app Serve hands requests to."""
        return self._ingress.behind_serve()


def build_app(args: GatewayArgs) -> Application:
    """The gateway. Its routing table is the deployment's ``user_config``; until there is one, it is not ready."""
    deployment = serve.deployment(name="Gateway", max_ongoing_requests=args.max_concurrent_requests + HEADROOM)(
        serve.ingress()(Gateway)
    )
    application: Application = deployment.bind(args)
    return application
