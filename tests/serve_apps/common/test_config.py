import logging

import pytest
from pydantic import TypeAdapter, ValidationError

from serve_apps.common.config import Config, Name, accepted


class _Limits(Config):
    max_requests: int = 1


class _Block(Config):
    name: Name
    limits: _Limits = _Limits()


def test_keys_are_written_in_camel_case() -> None:
    assert _Block.model_validate({"name": "a", "limits": {"maxRequests": 2}}).limits.max_requests == 2


def test_a_misspelt_key_is_refused_with_its_path() -> None:
    with pytest.raises(ValidationError, match=r"limits\.maxReqests"):
        _Block.model_validate({"name": "a", "limits": {"maxReqests": 2}})


def test_what_was_read_does_not_change() -> None:
    block = _Block(name="a")
    with pytest.raises(ValidationError, match="frozen"):
        block.name = "b"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["a", "llama-3", "a" * 47])
def test_a_dns_label_is_a_name(name: str) -> None:
    assert TypeAdapter(Name).validate_python(name) == name


@pytest.mark.parametrize("name", ["", "A", "a_b", "a.b", "-a", "a-", "a:b", "a" * 48, "a\n"])
def test_anything_else_is_not(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)


def test_valid_settings_replace_those_in_force() -> None:
    assert accepted(_Limits, {"maxRequests": 2}, _Limits(max_requests=1)).max_requests == 2


def test_invalid_settings_leave_those_in_force_and_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert accepted(_Limits, {"maxReqests": 2}, _Limits(max_requests=1)).max_requests == 1
    assert "maxReqests" in caplog.text


def test_invalid_settings_are_no_start() -> None:
    with pytest.raises(ValidationError, match="maxReqests"):
        accepted(_Limits, {"maxReqests": 2}, None)
