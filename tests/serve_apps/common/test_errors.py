import json

import pytest

from serve_apps.common import errors
from serve_apps.common.errors import NotFound, RateLimited, ServingError

TREE = sorted(line.split()[1] for line in (errors.__doc__ or "").splitlines() if "──" in line)


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    assert sorted(error.__name__ for error in ServingError.__subclasses__()) == TREE


@pytest.mark.parametrize("name", TREE)
def test_every_error_has_a_client_or_server_status_and_a_type(name: str) -> None:
    error = getattr(errors, name)
    assert 400 <= error.status < 600
    assert error.type


def test_the_body_is_openais() -> None:
    body = json.loads(NotFound("no such model", code="model_not_found", param="model").encoded())
    assert body == {
        "error": {
            "message": "no such model",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


def test_a_refusal_says_when_to_come_back() -> None:
    assert RateLimited("busy", retry_after_s=2).headers()["retry-after"] == "2"


def test_without_a_time_there_is_no_retry_after() -> None:
    assert "retry-after" not in RateLimited("busy").headers()
