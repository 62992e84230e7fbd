import json
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from serve_apps.common.middleware import Guard
from serve_apps.common.protocol import INTERNAL_HEADER
from serve_apps.common.secrets import InternalCredential

ALLOWED = "/v1/chat/completions"


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    """A guarded app that would answer everything; only POST to one path is allowed."""
    (tmp_path / "token").write_text("secret")
    methods = ["GET", "POST"]
    inner = Starlette(
        routes=[
            Route("/{path:path}", lambda request: PlainTextResponse("reached"), methods=methods),
            WebSocketRoute("/ws", lambda socket: socket.accept()),
        ]
    )
    guarded = Guard(
        inner,
        credential=InternalCredential(tmp_path / "token"),
        allows=lambda method, path: method == "POST" and path == ALLOWED,
    )
    return TestClient(Starlette(routes=[Mount("/internal/chat", app=guarded), Mount("/", app=guarded)]))


def test_without_the_credential_every_path_is_401(client: TestClient) -> None:
    for path in (ALLOWED, "/metrics", "/"):
        answer = client.post(path)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "internal_only"


def test_a_wrong_credential_is_401(client: TestClient) -> None:
    assert client.post(ALLOWED, headers={INTERNAL_HEADER: "secreT"}).status_code == 401


def test_an_allowed_path_with_the_credential_is_reached(client: TestClient) -> None:
    assert client.post(ALLOWED, headers={INTERNAL_HEADER: "secret"}).text == "reached"


def test_the_path_is_judged_below_the_route_prefix(client: TestClient) -> None:
    assert client.post(f"/internal/chat{ALLOWED}", headers={INTERNAL_HEADER: "secret"}).text == "reached"


@pytest.mark.parametrize(
    "path", ["/metrics", "/v1/load_lora_adapter", "/invocations", "/v1/chat/completions/", "//v1/chat/completions"]
)
def test_any_other_path_is_404_even_with_the_credential(client: TestClient, path: str) -> None:
    answer = client.post(path, headers={INTERNAL_HEADER: "secret"})
    assert answer.status_code == 404
    assert "No such path" in answer.json()["error"]["message"]


def test_another_method_is_refused(client: TestClient) -> None:
    assert client.get(ALLOWED, headers={INTERNAL_HEADER: "secret"}).status_code == 404


def test_a_websocket_is_closed_unseen(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws", headers={INTERNAL_HEADER: "secret"}):
        pass


def test_an_error_has_openais_shape(client: TestClient) -> None:
    error = json.loads(client.post(ALLOWED).content)["error"]
    assert set(error) == {"message", "type", "param", "code"}
