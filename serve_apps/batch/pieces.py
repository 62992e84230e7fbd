"""Large batches in pieces, which are sent from processes beside the replica: what they are, and how one is answered."""

import asyncio
import math
from collections.abc import AsyncGenerator, Container, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from serve_apps.batch.answering import Answer, Answering, Sender
from serve_apps.batch.lines import Line, read, spans
from serve_apps.batch.pace import Paces
from serve_apps.batch.storage import Storage

#: Answers come back by the piece, so it has few lines; but each is an object and a task of Ray's.
_MIN_LINES = 8
_MAX_PIECES = 4000


@dataclass(frozen=True, slots=True)
class Left:
    """What there is left to do of a batch."""

    tenant: str
    batch: str
    input: str
    """Where its lines are in the storage."""
    pieces: tuple[tuple[int, int], ...]
    """Of the input, the start and the bytes of each: all lines that nobody has answered, and no others."""
    piece_lines: int
    """Lines that a piece has at most."""
    concurrency: int
    """Lines at a time."""
    senders: int
    """Processes, which share them."""

    @property
    def share(self) -> int:
        """Lines that each process has at a time."""
        return max(1, self.concurrency // self.senders)

    @property
    def pieces_at_a_time(self) -> int:
        """Pieces that each process has: of twice as many lines as have a turn, since a piece ends with few."""
        return max(2, math.ceil(2 * self.share / self.piece_lines))


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of lines that were sent."""

    answers: tuple[Answer, ...]
    refused: int
    """How often lines were refused meanwhile."""


class Senders(Protocol):
    """Sends lines from processes of its own."""

    def answers(self, left: Left) -> AsyncGenerator[Sent, None]:
        """The answers as they come, until there are all. Closing this ends the processes."""


def piece_lines(total: int) -> int:
    """Lines that a piece of a batch with so many lines has at most."""
    return max(_MIN_LINES, math.ceil(total / _MAX_PIECES))


def pieces(stream: BinaryIO, answered: Container[str], most: int) -> Iterator[tuple[int, int]]:
    """Where the lines are that nobody has answered: of at most so many that stand together, the start and the bytes."""
    for start, text in spans(stream):
        begin = position = start
        count = 0
        for line in text.split(b"\n"):
            wanted = bool(line.strip()) and read(line).custom_id not in answered
            if count and (count == most or not wanted):
                yield begin, position - begin
                count = 0
            if wanted:
                begin = begin if count else position
                count += 1
            position += len(line) + 1
        if count:
            yield begin, position - begin


class Sending:
    """What one process does for a batch."""

    def __init__(self, storage: Storage, sender: Sender, left: Left) -> None:
        self._storage = storage
        self._input = left.input
        self._refused = 0
        self._answering = Answering(left.batch, sender, Paces(lambda: left.share), lambda: left.share, self._hear)

    async def send(self, start: int, size: int) -> Sent:
        """Have the lines of a piece answered."""
        text = await asyncio.to_thread(self._storage.read_range, self._input, start, size)
        answers: list[Answer] = []

        async def deliver(answer: Answer) -> None:
            answers.append(answer)

        await self._answering.answer(_lines(text), deliver)
        refused, self._refused = self._refused, 0
        return Sent(tuple(answers), refused)

    def _hear(self, refused: bool) -> None:
        self._refused += refused


async def _lines(text: bytes) -> AsyncGenerator[Line, None]:
    for line in text.split(b"\n"):
        if line.strip():
            yield read(line)
