import json
import logging

from serve_apps.common.logging import JsonFormatter, request_id


def line(**extra: object) -> dict[str, object]:
    record = logging.getLogger("serve_apps.x").makeRecord(
        "serve_apps.x", logging.INFO, "f.py", 1, "took %d ms", (5,), None, extra=extra
    )
    parsed: dict[str, object] = json.loads(JsonFormatter().format(record))
    return parsed


def test_a_line_is_one_json_object() -> None:
    assert line()["message"] == "took 5 ms"
    assert line()["level"] == "INFO"


def test_what_is_given_with_extra_is_in_the_line() -> None:
    assert line(tenant="team-a")["tenant"] == "team-a"


def test_inside_a_request_its_id_is_in_every_line() -> None:
    token = request_id.set("abc")
    try:
        assert line()["request_id"] == "abc"
    finally:
        request_id.reset(token)
    assert "request_id" not in line()


def test_what_json_cannot_hold_is_written_as_text() -> None:
    assert line(error=ValueError("bad"))["error"] == "bad"
