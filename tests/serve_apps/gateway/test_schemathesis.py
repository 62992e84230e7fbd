"""Our own routes keep what /openapi.json says of them, whatever they are asked."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.serve_apps.gateway.conftest import GatewayServer, chat_at
from tests.serve_apps.gateway.servers import PATIENCE_S

StartGateway = Callable[..., GatewayServer]

#: Requests for each operation.
EXAMPLES = 15
SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("with_key", [True, False], ids=["with a key", "without"])
def test_our_routes_answer_as_their_schema_says(gateway: StartGateway, with_key: bool) -> None:
    running = gateway(chat_at("http://host/internal/chat"))
    schema = schemathesis.openapi.from_dict(running.client.get("/openapi.json").json())
    headers = {"authorization": f"Bearer {running.key}"} if with_key else {}
    asked: dict[str, set[int]] = {}
    for result in schema.get_all_operations():
        operation = result.ok()  # type: ignore[union-attr]  # not ok is an error in the schema, and raises here

        @SETTINGS
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case[Any]) -> None:
            response = case.call(base_url=running.url, headers=headers, timeout=PATIENCE_S)
            case.validate_response(response)
            asked.setdefault(case.operation.path, set()).add(response.status_code)
            if response.status_code >= 400:
                assert set(json.loads(response.content)) == {"error"}

        ask()
    assert {"/v1/models", "/v1/models/{model}", "/healthz", "/readyz"} <= set(asked)
    assert asked["/healthz"] == {200}
    assert asked["/v1/models"] == ({200} if with_key else {401})
