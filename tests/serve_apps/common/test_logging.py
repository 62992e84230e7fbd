import json
import logging
import time
from pathlib import Path

import pytest

from serve_apps.common import logging as common_logging
from serve_apps.common.logging import JsonFormatter, Lines, request_id


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


def test_lines_are_as_logging_writes_them(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    logger, lines = logging.getLogger("serve_apps.x"), Lines("serve_apps.x")
    for now in (1_764_072_000.0, 1_764_072_000.25, 1_764_072_001.999):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        record = logger.makeRecord("serve_apps.x", logging.INFO, "f.py", 1, "took", (), None, extra={"tenant": "a\nb"})
        record.created, record.msecs = now, int(now * 1000) % 1000
        lines.info("took", {"tenant": "a\nb"})
        assert capfd.readouterr().err == f"{JsonFormatter().format(record)}\n"


def test_a_full_disk_costs_a_line_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(common_logging, "STDERR", full.fileno())
        Lines("serve_apps.x").info("took", {})
        with pytest.raises(OSError, match="No space left"):
            full.write(b"as here")
