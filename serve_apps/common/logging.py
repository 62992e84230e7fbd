"""JSON log lines with the request's id, one object a line, for any log collector."""

import asyncio
import json
import logging
import os
import select
import sys
import time
from contextvars import ContextVar
from functools import cache
from typing import Any

import orjson

#: The id of the request being handled; empty outside a request.
request_id: ContextVar[str] = ContextVar("request_id", default="")

#: Names the file behind the container's log, as ``/proc/1/fd/2``. In a process of Ray's, stderr is a file in the pod
#: that ``kubectl logs`` does not show, and of which Ray's log monitor reads each line: under load a quarter of a core.
CONTAINER_LOG = "LLM_SERVING_CONTAINER_LOG"
#: As a file descriptor.
STDERR = 2
#: Lines written within this time go out together: whoever reads them wakes once for all.
TOGETHER_S = 0.02
#: So many lines that nobody reads are kept; further ones are lost.
KEPT_LINES = 5_000
#: What a LogRecord has by itself; everything else in its dict was given with ``extra=``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, request_id and what was given with ``extra=``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if rid := request_id.get():
            line["request_id"] = rid
        # Ray, where it is imported, gives every record times of its own.
        given = vars(record).items()
        line.update({key: value for key, value in given if key not in _STANDARD and not key.startswith("_ray")})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class Lines:
    """Lines of one logger for what happens thousands of times a second, in the form of all others.

    Python's own logging takes 45 µs for one in a replica of Ray, which adds to each record; this takes 4. On an event
    loop they are written a moment later, together. A log that is not read holds nobody up: lines are kept, then lost.
    """

    def __init__(self, name: str) -> None:
        """``name`` is the logger's."""
        self._name = name
        self._second = 0
        self._time = ""
        self._told: list[tuple[float, str, dict[str, Any]]] = []
        self._unwritten: list[bytes] = []
        """What was told before, as far as the log did not take it yet."""
        self._lost = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        """That will write what there is."""

    def info(self, message: str, told: dict[str, Any]) -> None:
        """Add a line to the log, with what is ``told`` beside the message; do not change it any more."""
        if len(self._told) >= KEPT_LINES:
            self._lost += 1
            return
        self._told.append((time.time(), message, told))
        self._write_soon()

    def _write_soon(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            return
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._write()
        else:
            self._loop.call_later(TOGETHER_S, self._due)

    def _due(self) -> None:
        self._loop = None
        self._write()
        if self._unwritten:
            self._write_soon()

    def _write(self) -> None:
        """Write what there is, as far as the log takes it now."""
        log = container_log()
        self._unwritten = _untaken(log, self._unwritten)
        if not self._unwritten:
            told, self._told = self._told, []
            self._unwritten = _untaken(log, _blocks([self._line(*each) for each in told]))
        if self._lost and not self._unwritten:
            logging.getLogger(self._name).warning("%d lines were lost: nobody read the log", self._lost)
            self._lost = 0

    def _line(self, now: float, message: str, told: dict[str, Any]) -> bytes:
        line = {"time": self._as_text(now), "level": "INFO", "logger": self._name, "message": message, **told}
        try:
            return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:  # half a surrogate pair, as a token's claim may have
            return f"{json.dumps(line, default=str)}\n".encode()

    def _as_text(self, now: float) -> str:
        """The time as ``logging`` writes it, of which all but the milliseconds stays for a second."""
        if int(now) != self._second:
            self._second = int(now)
            self._time = time.strftime(logging.Formatter.default_time_format, time.localtime(now))
        return f"{self._time},{int(now * 1000) % 1000:03}"


def _blocks(lines: list[bytes]) -> list[bytes]:
    """Whole lines in writes that a pipe does not mix with those of other processes, as long as a line is no longer."""
    blocks: list[list[bytes]] = []
    size = select.PIPE_BUF
    for line in lines:
        if size + len(line) > select.PIPE_BUF:
            blocks.append([])
            size = 0
        blocks[-1].append(line)
        size += len(line)
    return [b"".join(block) for block in blocks]


def _untaken(log: int, blocks: list[bytes]) -> list[bytes]:
    """What a file descriptor does not take now of all that is written to it."""
    for index, block in enumerate(blocks):
        try:
            written = os.write(log, block)
        except BlockingIOError:
            written = 0
        except OSError:
            continue  # As with ``logging``, a full disk costs lines, and nobody an answer.
        if written < len(block):
            return [block[written:], *blocks[index + 1 :]]
    return []


@cache
def container_log() -> int:
    """The container's log, as a file descriptor; stderr where it is not named, or cannot be opened.

    Writes never wait: its reader may be slow.
    """
    if not (path := os.environ.get(CONTAINER_LOG)):
        return STDERR
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
    except OSError as error:
        logging.getLogger(__name__).warning("%s: %s: logs go to stderr", CONTAINER_LOG, error)
        return STDERR


def configure(level: str = "INFO") -> None:
    """Send the ``serve_apps`` loggers to the container's log as JSON. Safe to call again."""
    logger = logging.getLogger("serve_apps")
    logger.setLevel(level)
    if not logger.handlers:
        # Not sys.stderr: in a replica Serve puts that through its own log, which holds back up to 1000 lines.
        log = container_log()
        handler = logging.StreamHandler(sys.__stderr__ if log == STDERR else os.fdopen(os.dup(log), "w"))
        handler.setFormatter(JsonFormatter())
        logger.addHandler(handler)
        logger.propagate = False
