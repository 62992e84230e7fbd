"""JSON log lines with the request's id, one object a line, for any log collector."""

import contextlib
import logging
import os
import sys
import time
from contextvars import ContextVar
from typing import Any

import orjson

#: The id of the request being handled; empty outside a request.
request_id: ContextVar[str] = ContextVar("request_id", default="")

#: As a file descriptor.
STDERR = 2
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

    Python's own logging takes 45 µs for one in a replica of Ray, which adds to each record; this takes 5.
    """

    def __init__(self, name: str) -> None:
        """``name`` is the logger's."""
        self._name = name
        self._second = 0
        self._time = ""

    def info(self, message: str, told: dict[str, Any]) -> None:
        """Write a line to stderr now, with what is ``told`` beside the message."""
        line = {"time": self._now(), "level": "INFO", "logger": self._name, "message": message, **told}
        # As with ``logging``, a full disk costs lines, and nobody an answer.
        with contextlib.suppress(OSError):
            os.write(STDERR, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def _now(self) -> str:
        """The time as ``logging`` writes it, of which all but the milliseconds stays for a second."""
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._time = time.strftime(logging.Formatter.default_time_format, time.localtime(now))
        return f"{self._time},{int(now * 1000) % 1000:03}"


def configure(level: str = "INFO") -> None:
    """Send the ``serve_apps`` loggers to stderr as JSON. Safe to call again."""
    logger = logging.getLogger("serve_apps")
    logger.setLevel(level)
    if not logger.handlers:
        # Not sys.stderr: in a replica Serve puts that through its own log, which holds back up to 1000 lines.
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(JsonFormatter())
        logger.addHandler(handler)
        logger.propagate = False
