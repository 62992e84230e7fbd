"""A file of requests, answered from the command line: the lines of a batch without its service.

Answers are appended as they come. A run that was broken off goes on where it was: lines that the output has are not
sent again, so at most those that were under way are answered twice by the models, and none twice in the output.
"""

import asyncio
import contextlib
import fcntl
import io
import os
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import BinaryIO

import aiohttp
import orjson

from serve_apps.batch.answering import Answer, Answering
from serve_apps.batch.lines import Check, InputWrong, Line, blocks, read
from serve_apps.batch.objects import BatchError
from serve_apps.batch.pace import Paces
from serve_apps.common.errors import NotFound, Unauthenticated, Unavailable
from serve_apps.common.gateway_client import Reply, read_reply
from serve_apps.common.protocol import REQUEST_ID_HEADER

#: Lines that a file may have: what is kept in memory is their ids.
MAX_LINES = 10_000_000
CONNECT_TIMEOUT_S = 10
#: Between two words on the progress, in seconds.
TELL_S = 1.0
#: What a record of an output begins with.
_BEGINNING = b'{"id":"batch_req_'
#: Of the progress bar, in characters.
BAR_WIDTH = 30


class KeySender:
    """Sends lines with an API key, to a gateway or any server with OpenAI's API."""

    def __init__(self, url: str, key: str, timeout_s: float, connections: int) -> None:
        """``url``: without ``/v1``; ``timeout_s``: how long an answer may take, in seconds."""
        self._url = url.rstrip("/").removesuffix("/v1")
        self._session = aiohttp.ClientSession(
            headers={"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {}),
            connector=aiohttp.TCPConnector(limit=connections),
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S),
        )

    async def check(self) -> None:
        """Prove that the server is there and knows the key: a line would be tried for ever, or all would fail.

        Raises:
            ServingError: it is not, or does not.
        """
        try:
            async with self._session.get(f"{self._url}/v1/models") as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"{self._url} cannot be reached: {error}") from error
        if status in (401, 403):
            raise Unauthenticated(f"{self._url} refuses the key; set OPENAI_API_KEY to one of its own.")
        if status == 404:
            raise NotFound(f"{self._url} has no /v1/models, so it is no server with OpenAI's API.")

    async def send(self, path: str, body: bytes, request_id: str) -> Reply:
        headers = {REQUEST_ID_HEADER: request_id}
        try:
            async with self._session.post(self._url + path, data=body, headers=headers) as response:
                return await read_reply(response)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"{self._url} cannot be reached: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


class Run:
    """The answers to one file of requests."""

    def __init__(self, requests: Path, output: Path, errors: Path) -> None:
        """Answers are appended to ``output``; ``errors`` is written anew, since what failed is tried again."""
        self._requests = requests
        self._output = output
        self._errors = errors
        self._writer: BinaryIO = io.BytesIO()
        """The output, once the run is prepared."""
        self.total = 0
        self.answered: set[str] = set()
        """The ids of the lines that the output answers, of this run and those before."""
        self.failed = 0
        self.refused = 0
        """Refusals so far, each of which is followed by another attempt."""

    @property
    def done(self) -> int:
        """Lines that are answered or have failed."""
        return len(self.answered) + self.failed

    def prepare(self) -> None:
        """Check every line, and find those that are answered already.

        Raises:
            InputWrong: some lines are no requests, or the output is not this run's to write; no file is changed.
            OSError: a file cannot be read or written.
        """
        if len({path.resolve() for path in (self._requests, self._output, self._errors)}) < 3:
            raise _wrong("The input, the output and the errors must be three files.")
        check = Check(None, MAX_LINES)
        with self._requests.open("rb") as stream:
            check.see_all(stream)
        check.finish()
        if check.errors:
            raise InputWrong(check.errors)
        self.total = check.total
        self._writer = self._output.open("ab")
        try:
            fcntl.flock(self._writer, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _wrong(f"{self._output}: another run is writing it.") from None
        self.answered = self._recall() & check.seen
        self._errors.open("ab").close()  # so that it can be written when there is something to write

    def close(self) -> None:
        """Let other runs write the output."""
        self._writer.close()

    def _recall(self) -> set[str]:
        """The ids that the output has; a last line that was cut off goes away."""
        found: set[str] = set()
        whole = 0
        with self._output.open("rb") as stream:
            for number, record in enumerate(stream, 1):
                cut_off = not record.endswith(b"\n")
                custom_id = None if cut_off else _answered_id(record)
                if custom_id is None and not (cut_off and _BEGINNING.startswith(record[: len(_BEGINNING)])):
                    raise _wrong(f"{self._output}, line {number}: this is no answer; set another output.")
                if custom_id is not None:
                    whole += len(record)
                    found.add(custom_id)
        os.truncate(self._output, whole)
        return found

    async def answer(self, sender: KeySender, concurrency: int) -> None:
        """Have all lines answered that are not; after `prepare`."""
        name = str(self._requests.resolve())
        answering = Answering(name, sender, Paces(lambda: concurrency), lambda: concurrency, self._hear)
        with self._errors.open("wb") as errors:

            async def deliver(answer: Answer) -> None:
                self._write(answer, errors)

            async with contextlib.aclosing(self._lines()) as lines:
                await answering.answer(lines, deliver)

    def _write(self, answer: Answer, errors: BinaryIO) -> None:
        file = self._writer if answer.outcome == "output" else errors
        file.write(answer.record)
        file.flush()
        if answer.outcome == "output":
            self.answered.add(answer.custom_id)
        else:
            self.failed += 1

    def _hear(self, refused: bool) -> None:
        self.refused += refused

    async def _lines(self) -> AsyncGenerator[Line, None]:
        with self._requests.open("rb") as stream:
            for block in blocks(stream):
                for _, text in block:
                    line = read(text)
                    if line.custom_id not in self.answered:
                        yield line


def _wrong(problem: str) -> InputWrong:
    """What keeps a run from beginning, beside its lines."""
    return InputWrong([BatchError(code="files_unusable", message=problem)])


def _answered_id(record: bytes) -> str | None:
    """The id of the line that a record of an output answers; None where it answers none."""
    try:
        document = orjson.loads(record)
        custom_id, _ = document["custom_id"], document["response"]["status_code"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return None
    return str(custom_id)


class Progress:
    """How far a run is: a bar, and in words."""

    def __init__(self, run: Run, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run
        self._clock = clock
        self._began_s = clock()
        self._before = run.done

    def __str__(self) -> str:
        run = self._run
        rate = (run.done - self._before) / max(self._clock() - self._began_s, 1e-9)
        left = f"{(run.total - run.done) / rate:.0f} s left" if rate else "no answer yet"
        bar = ("#" * (BAR_WIDTH * run.done // run.total)).ljust(BAR_WIDTH, ".")
        return (
            f"[{bar}] {run.done}/{run.total} {100 * run.done // run.total} %, {rate:.1f} lines/s, {left}, "
            f"{run.failed} failed, {run.refused} put off"
        )


async def answer(run: Run, url: str, key: str, concurrency: int, timeout_s: float, tell: Callable[[], None]) -> None:
    """Answer a prepared run; ``tell`` is called about each second, and at the end.

    Raises:
        ServingError: the server is not there, or refuses the key; nothing was sent.
    """
    sender = KeySender(url, key, timeout_s, concurrency)
    try:
        await sender.check()
        work = asyncio.create_task(run.answer(sender, concurrency))
        try:
            while not work.done():
                await asyncio.wait([work], timeout=TELL_S)
                tell()
            await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
    finally:
        await sender.close()
