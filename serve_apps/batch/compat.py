"""Everything we use of Ray Serve that is not its public API, in one place."""

from typing import Any

from ray.serve._private.api import serve_start
from ray.serve.schema import ServeDeploySchema


def deploy(config: dict[str, Any]) -> None:
    """Have Serve run a whole config on this cluster, as ``serve run config.yaml`` does; returns at once."""
    schema = ServeDeploySchema.model_validate(config)
    client = serve_start(http_options=schema.http_options.model_dump(), proxy_location=schema.proxy_location)
    client.deploy_apps(schema)
