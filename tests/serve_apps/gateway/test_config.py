from contextlib import nullcontext

import pytest
from pydantic import ValidationError

from serve_apps.gateway.config import GatewayArgs, RoutingTable


def test_arguments_are_written_in_camel_case() -> None:
    assert GatewayArgs.model_validate({"maxRequestBytes": 2048}).max_request_bytes == 2048


def test_a_misspelt_argument_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="maxRequestByte"):
        GatewayArgs.model_validate({"maxRequestByte": 2048})


def test_keys_are_asked_for_unless_switched_off() -> None:
    assert GatewayArgs().auth == "apiKeys"


def test_a_table_of_named_upstreams_is_read() -> None:
    table = RoutingTable.model_validate(
        {"models": {"chat": {"url": "http://127.0.0.1:8000/internal/chat", "task": "generate"}}}
    )
    assert table.models["chat"].task == "generate"


@pytest.mark.parametrize(
    ("name", "url", "task"),
    [
        ("Chat", "http://host/internal/chat", "generate"),
        ("chat", "http://host/internal/chat/", "generate"),
        ("chat", "http://host/internal/chat?x=1", "generate"),
        ("chat", "host/internal/chat", "generate"),
        ("chat", "http://host/internal/chat", "sing"),
    ],
)
def test_a_table_with_a_bad_name_url_or_task_is_refused(name: str, url: str, task: str) -> None:
    with pytest.raises(ValidationError):
        RoutingTable.model_validate({"models": {name: {"url": url, "task": task}}})


@pytest.mark.parametrize(("models", "valid"), [(["chat", "chat-v2"], True), (["chat", "chat"], False)])
def test_a_route_names_each_version_once(models: list[str], valid: bool) -> None:
    route = {"versions": [{"model": model} for model in models]}
    with nullcontext() if valid else pytest.raises(ValidationError, match="more than once: chat"):
        RoutingTable.model_validate({"routes": {"assistant": route}})
