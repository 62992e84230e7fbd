"""A batch on accelerators of its own: its lines, what is left of them, and its files. Who answers them is in `job`.

In the output folder are ``output.jsonl`` and ``errors.jsonl`` when all is answered, and ``batch.json``, which says of
which input. Until then what is answered is in ``parts``, so that whoever takes the job up asks only what is left.
"""

import asyncio
import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Literal

from serve_apps.batch.answering import BUSY, FAILURES, Answer, answered, request_id_of
from serve_apps.batch.config import JobArgs
from serve_apps.batch.leases import StoredLeases
from serve_apps.batch.lines import Check, InputWrong, read, spans
from serve_apps.batch.objects import BatchError, RequestCounts, Shape
from serve_apps.batch.parts import OUTCOMES, Parts
from serve_apps.batch.storage import Storage
from serve_apps.common.gateway_client import Reply
from serve_apps.common.redis import LEASE_S

#: Lines that a job may have: the driver keeps their ids.
MAX_LINES = 10_000_000
#: Passes over what is left that may bring nothing, before a failure is a line's answer.
MAX_PASSES = 4
_RECORD = "batch.json"
_LEASE = "job"

logger = logging.getLogger(__name__)


class TakenAway(Exception):
    """Another driver has the job."""


class Record(Shape):
    """What is in the output folder."""

    input: str
    files: dict[str, int]
    """The input's files and their sizes: another input has another folder."""
    status: Literal["in_progress", "completed"] = "in_progress"
    request_counts: RequestCounts = RequestCounts()


class Piece(Shape):
    """Lines of the input that stand together, at least one of which is not answered."""

    file: str
    start: int
    size: int
    answered: tuple[str, ...] = ()
    """Custom ids of those that are."""


class Job:
    """One job, as its driver sees it. Everything waits for the storage."""

    def __init__(self, args: JobArgs) -> None:
        """Check the input, unless an earlier driver has.

        Raises:
            InputWrong: lines are no requests, or the output folder is another input's.
            OSError: a place cannot be read or written.
        """
        self._args = args
        self._input = Storage(args.input)
        self._output = Storage(args.output)
        self._parts = parts_of(self._output)
        self.answered = 0
        """Lines that had an answer when `left` looked."""
        self.record = self._begun()
        """How the job stands."""

    def _begun(self) -> Record:
        found = Record(input=self._args.input, files=self._input.files(".jsonl"))
        stored = self._output.read(_RECORD)
        if stored is not None:
            record = Record.model_validate_json(stored)
            if (record.input, record.files) != (found.input, found.files):
                problem = f"{self._args.output} has the answers to {record.input}, as it was; set another output."
                raise InputWrong([BatchError(code="output_in_use", message=problem)])
            return record
        check = Check(None, MAX_LINES)
        for file in found.files:
            with contextlib.closing(self._input.open(file)) as stream:
                check.see_all(stream)
        check.finish()
        if check.errors:
            raise InputWrong(check.errors)
        return self._kept(found.model_copy(update={"request_counts": RequestCounts(total=check.total)}))

    def left(self) -> list[Piece]:
        """What is not answered yet."""
        done: set[str] = set()
        for outcome in OUTCOMES:
            for _ in self._parts.records(outcome, done):
                pass
        self.answered = len(done)
        return list(self._pieces(done))

    def _pieces(self, done: set[str]) -> Iterator[Piece]:
        for file in self.record.files:
            with contextlib.closing(self._input.open(file)) as stream:
                for start, text in spans(stream):
                    ids = [read(line).custom_id for line in text.split(b"\n") if line.strip()]
                    known = tuple(one for one in ids if one in done)
                    if len(known) < len(ids):
                        yield Piece(file=file, start=start, size=len(text), answered=known)

    def finish(self) -> Record:
        """Make the two files of the parts.

        Raises:
            RuntimeError: lines are missing.
        """
        seen: set[str] = set()
        completed = self._write("output.jsonl", self._parts.records("output", seen))
        failed = self._write("errors.jsonl", self._parts.records("errors", seen))
        counts = self.record.request_counts.model_copy(update={"completed": completed, "failed": failed})
        if completed + failed != counts.total:
            raise RuntimeError(f"{completed} + {failed} of {counts.total} lines have an answer")
        self.record = self._kept(self.record.model_copy(update={"status": "completed", "request_counts": counts}))
        self._parts.delete()
        return self.record

    def _write(self, name: str, records: Iterable[bytes]) -> int:
        count = 0
        with self._output.writing(name) as stream:
            for record in records:
                stream.write(record)
                count += 1
        return count

    def _kept(self, record: Record) -> Record:
        self._output.write(_RECORD, record.model_dump_json().encode())
        return record


class Hold:
    """Has a job to oneself while it is entered; waits for its turn."""

    def __init__(self, output: str, lease_s: float = LEASE_S) -> None:
        self._leases = StoredLeases(Storage(output), uuid.uuid4().hex, lease_s)
        self._every_s = lease_s / 3
        self._over = threading.Event()
        self._lost = False

    def __enter__(self) -> "Hold":
        while not asyncio.run(self._leases.take(_LEASE)):
            logger.info("another driver has the job")
            time.sleep(self._every_s)
        self._renewing = threading.Thread(target=self._renew, daemon=True)
        self._renewing.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._renewing.join()
        asyncio.run(self._leases.release(_LEASE))

    def check(self) -> None:
        """Raise where it is another's.

        Raises:
            TakenAway: it is.
        """
        if self._lost:
            raise TakenAway

    def _renew(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                self._lost = not asyncio.run(self._leases.renew(_LEASE))
            except OSError:
                logger.exception("the lease cannot be renewed now")
            if self._lost:
                return


def parts_of(output: Storage) -> Parts:
    """What is answered of the job whose output folder this is."""
    return Parts(output, "parts")


def lines_of(args: JobArgs, piece: Piece) -> Iterator[dict[str, str]]:
    """The lines of a piece that are not answered, as rows of text."""
    text = Storage(args.input).read_range(piece.file, piece.start, piece.size)
    known = set(piece.answered)
    for one in text.split(b"\n"):
        if one.strip() and (line := read(one)).custom_id not in known:
            yield {"custom_id": line.custom_id, "path": line.url, "body": line.body.decode()}


def judged(args: JobArgs, custom_id: str, status: int, body: str, *, final: bool) -> Answer | None:
    """What a line's answer is in the output; None where it is to be asked again, unless that is ``final``."""
    if status in BUSY | FAILURES and not final:
        return None
    return answered(custom_id, request_id_of(args.output, custom_id), Reply(status, body.encode()))
