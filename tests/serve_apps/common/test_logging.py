import asyncio
import contextlib
import json
import logging
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_apps.common import logging as common_logging
from serve_apps.common.logging import (
    CONTAINER_LOG,
    STDERR,
    TOGETHER_S,
    JsonFormatter,
    Lines,
    configure,
    container_log,
    request_id,
)


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


def test_half_a_surrogate_pair_costs_no_line(capfd: pytest.CaptureFixture[str]) -> None:
    Lines("serve_apps.x").info("took", {"tenant": "a\ud800"})
    assert json.loads(capfd.readouterr().err)["tenant"] == "a\ud800"


def test_a_full_disk_costs_a_line_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(common_logging, "container_log", full.fileno)
        Lines("serve_apps.x").info("took", {})
        with pytest.raises(OSError, match="No space left"):
            full.write(b"as here")


@pytest.fixture
def pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The end to read of what stands in for the container's log."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setenv(CONTAINER_LOG, str(path))
    container_log.cache_clear()
    yield reader
    if (log := container_log()) != STDERR:
        os.close(log)
    container_log.cache_clear()
    os.close(reader)


def numbers(written: bytes) -> list[int]:
    """Those of whole lines."""
    return [json.loads(each)["number"] for each in written.splitlines()]


def test_on_an_event_loop_lines_are_written_together_in_whole_lines_for_a_pipe(
    pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[bytes] = []

    def write(_: int, block: bytes) -> int:
        writes.append(block)
        return len(block)

    monkeypatch.setattr(os, "write", write)

    async def tell() -> None:
        lines = Lines("serve_apps.x")
        for number in range(100):
            lines.info("took", {"number": number})
        assert not writes
        await asyncio.sleep(2 * TOGETHER_S)

    asyncio.run(tell())
    assert 1 < len(writes) < 20
    assert max(map(len, writes)) <= select.PIPE_BUF
    assert [number for block in writes for number in numbers(block)] == list(range(100))


def test_a_log_that_nobody_reads_holds_nobody_up_and_says_what_was_lost(
    pipe: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(common_logging, "KEPT_LINES", 1000)

    async def tell() -> list[int]:
        lines, read = Lines("serve_apps.x"), b""
        for number in range(1000):
            lines.info("took", {"number": number})
        await asyncio.sleep(2 * TOGETHER_S)  # as many as the pipe holds are written
        for number in range(1000, 2100):
            lines.info("took", {"number": number})
        while not caplog.records:
            with contextlib.suppress(BlockingIOError):
                read += os.read(pipe, 1_000_000)
            await asyncio.sleep(TOGETHER_S)
        return numbers(read + os.read(pipe, 1_000_000))

    assert asyncio.run(asyncio.wait_for(tell(), 60)) == list(range(2000))
    assert [record.getMessage() for record in caplog.records] == ["100 lines were lost: nobody read the log"]


def test_loggers_write_to_the_containers_log_where_there_is_one(
    pipe: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("serve_apps")
    monkeypatch.setattr(logger, "handlers", [])
    configure()
    logger.info("hello")
    Lines("serve_apps.x").info("took", {})
    logger.handlers[0].stream.close()  # type: ignore[attr-defined]
    assert [json.loads(each)["message"] for each in os.read(pipe, 10_000).splitlines()] == ["hello", "took"]
    assert not capfd.readouterr().err


def test_where_the_containers_log_cannot_be_opened_stderr_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(CONTAINER_LOG, str(tmp_path / "none" / "2"))
    container_log.cache_clear()
    assert container_log() == STDERR
    assert "No such file or directory" in caplog.text
    container_log.cache_clear()
