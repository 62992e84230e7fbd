"""When the local runner takes a cluster for started."""

from typing import Any

import httpx
import pytest

from tools.demo import cluster

APPLICATIONS: list[dict[str, Any]] = [{"route_prefix": "/"}, {"route_prefix": "/internal/chat"}, {"route_prefix": None}]


@pytest.mark.parametrize(
    ("status", "told", "reached"),
    [
        (200, '{"/":"gateway","/internal/chat":"chat","/internal/rag":"rag"}', True),
        (200, '{"/":"gateway"}', False),
        (503, "This proxy has not received routes yet", False),
    ],
)
def test_applications_are_reached_once_haproxy_has_their_routes(
    monkeypatch: pytest.MonkeyPatch, status: int, told: str, reached: bool
) -> None:
    monkeypatch.setattr(httpx, "get", lambda *_, **__: httpx.Response(status, text=told))
    assert cluster._are_reached(8000, APPLICATIONS) == reached


def test_they_are_not_before_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> httpx.Response:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(httpx, "get", refused)
    assert not cluster._are_reached(8000, APPLICATIONS)
