"""The gateway's application, but for its patience with Redis: a busy machine must not look like one that is down."""

from ray import serve
from ray.serve import Application

from serve_apps.gateway import store
from serve_apps.gateway.app import Gateway
from serve_apps.gateway.config import GatewayArgs
from tests.serve_apps.gateway.redis import UNHURRIED_S


class PatientGateway(Gateway):
    """One replica of it."""

    def __init__(self, args: GatewayArgs) -> None:
        store.PATIENCE_S = UNHURRIED_S
        super().__init__(args)


def build_app(args: GatewayArgs) -> Application:
    """The same as the gateway's own."""
    application: Application = serve.deployment(name="Gateway")(serve.ingress()(PatientGateway)).bind(args)
    return application
