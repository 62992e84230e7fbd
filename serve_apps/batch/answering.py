"""Lines, answered: many at a time, again where the model is busy, each with the id it has in every attempt."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import orjson

from serve_apps.batch.lines import Line
from serve_apps.batch.pace import Pace, Paces
from serve_apps.common.errors import ServingError
from serve_apps.common.gateway_client import Reply

#: Refusals that end when there is room again; a line waits as long as its batch may.
BUSY = frozenset({429, 503})
#: In the refusal of a tenant that has reached its own limits.
_TENANTS_LIMIT = b'"rate_limit_exceeded"'
#: Failures that another attempt may mend, and how many attempts a line has.
FAILURES = frozenset({408, 500, 502, 504})
MAX_ATTEMPTS = 4
#: Before the second attempt after a failure, in seconds; twice as long before each further one.
PAUSE_S = 1.0

Outcome = Literal["output", "errors"]

logger = logging.getLogger(__name__)


class Sender(Protocol):
    """Sends a line to the gateway."""

    async def send(self, path: str, body: bytes, request_id: str) -> Reply:
        """What ``path`` answers.

        Raises:
            ServingError: nothing came.
        """


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a line."""

    custom_id: str
    outcome: Outcome
    """The file it belongs in."""
    record: bytes
    """Its line there."""


Heard = Callable[[bool], None]


def _unheard(_refused: bool) -> None:
    pass


class Answering:
    """Answers the lines of one batch."""

    def __init__(
        self, batch: str, sender: Sender, paces: Paces, concurrency: Callable[[], int], heard: Heard = _unheard
    ) -> None:
        """Nothing is sent yet.

        Args:
            batch: its id, or any name that is the same when its lines are sent again.
            sender: sends them.
            paces: the pace at each model, which other batches share.
            concurrency: lines under way at a time at most, those that wait for their turn included.
            heard: is told of every reply, whether it was a refusal.
        """
        self._batch = batch
        self._sender = sender
        self._paces = paces
        self._own_pace = Pace(concurrency)
        self._concurrency = concurrency
        self._heard = heard

    async def answer(self, lines: AsyncIterator[Line], deliver: Callable[[Answer], Awaitable[None]]) -> None:
        """Have every line answered. What was delivered stays so when this is cancelled."""
        under_way: set[asyncio.Task[None]] = set()
        try:
            async for line in lines:
                under_way.add(asyncio.create_task(self._deliver(line, deliver)))
                while len(under_way) >= self._concurrency():
                    under_way = await _fewer(under_way)
            while under_way:
                under_way = await _fewer(under_way)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _deliver(self, line: Line, deliver: Callable[[Answer], Awaitable[None]]) -> None:
        await deliver(await self._answer(line))

    async def _answer(self, line: Line) -> Answer:
        request_id = request_id_of(self._batch, line.custom_id)
        pace = self._paces.at(line.model)
        attempts = 0
        while True:
            async with self._own_pace.turn(), pace.turn():
                reply = await self._reply(line, request_id)
                busy = reply.status in BUSY and not reply.final
                self._heard(busy)
                if busy:
                    # What one tenant has used up is no reason for the others to wait.
                    (self._own_pace if _TENANTS_LIMIT in reply.body else pace).refused(reply.retry_after_s)
                    continue
                self._own_pace.answered()
                pace.answered()
            attempts += 1
            if reply.status not in FAILURES or attempts >= MAX_ATTEMPTS:
                return answered(line.custom_id, request_id, reply)
            await asyncio.sleep(PAUSE_S * 2 ** (attempts - 1))

    async def _reply(self, line: Line, request_id: str) -> Reply:
        try:
            return await self._sender.send(line.url, line.body, request_id)
        except ServingError as error:
            return Reply(error.status, error.encoded(), error.retry_after_s)


async def _fewer(tasks: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Those that go on when at least one is done."""
    done, going_on = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return going_on


def request_id_of(batch: str, custom_id: str) -> str:
    """The id of a line's requests and of its answer: the same in every attempt, by whichever worker."""
    return f"batch_req_{hashlib.sha256(f'{batch} {custom_id}'.encode()).hexdigest()[:24]}"


def answered(custom_id: str, request_id: str, reply: Reply) -> Answer:
    """The record of an answer, as OpenAI's output and error files have it."""
    response: dict[str, Any] = {"status_code": reply.status, "request_id": request_id, "body": None}
    record = {"id": request_id, "custom_id": custom_id, "response": response, "error": None}
    try:
        response["body"] = orjson.loads(reply.body)
        encoded = orjson.dumps(record)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # the second: nested too deeply
        error = {"message": "The answer is not JSON.", "type": "server_error", "param": None, "code": None}
        response["body"] = {"error": error}
        encoded = orjson.dumps(record)
    return Answer(custom_id, "output" if reply.status == 200 else "errors", encoded + b"\n")


def unanswered(batch: str, custom_id: str, code: str, message: str) -> bytes:
    """The record of a line that was not answered in time."""
    error = {"code": code, "message": message}
    record = {"id": request_id_of(batch, custom_id), "custom_id": custom_id, "response": None, "error": error}
    return orjson.dumps(record) + b"\n"
