"""JSON log lines with the request's id, one object a line, for any log collector."""

import logging
import sys
from contextvars import ContextVar

import orjson

#: The id of the request being handled; empty outside a request.
request_id: ContextVar[str] = ContextVar("request_id", default="")

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
