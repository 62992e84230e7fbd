"""One batch, from the check of its lines to its output: what its worker does, and what the next one goes on with."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from serve_apps.batch.answering import Answer, Answering, Sender, unanswered
from serve_apps.batch.batches import Batches
from serve_apps.batch.config import BatchSettings
from serve_apps.batch.files import Files
from serve_apps.batch.lines import Check, Line, blocks, read
from serve_apps.batch.objects import Batch, BatchError, Ending, Errors, RequestCounts
from serve_apps.batch.observation import Observer
from serve_apps.batch.pace import Paces
from serve_apps.batch.pieces import Left, Senders, piece_lines, pieces
from serve_apps.common.gateway_client import Caller, GatewayClient, Reply

#: Answers are kept at least so often, in seconds, and at the latest when there are so many.
KEEP_S = 5.0
KEEP_ANSWERS = 1000

#: What is said of lines that were not answered.
_UNANSWERED = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed: the batch was cancelled."),
}

logger = logging.getLogger(__name__)


class TenantSender:
    """Sends lines to the gateway for a tenant, to be answered after everybody's requests."""

    def __init__(self, gateway: GatewayClient, tenant: str) -> None:
        self._gateway = gateway
        self._tenant = tenant

    async def send(self, path: str, body: bytes, request_id: str) -> Reply:
        return await self._gateway.reply(path, body, Caller(self._tenant, request_id))


@dataclass(frozen=True, slots=True)
class Workplace:
    """What all batches of a replica are worked on with."""

    files: Files
    batches: Batches
    sender: Callable[[str], Sender]
    """Sends for a tenant."""
    paces: Paces
    settings: Callable[[], BatchSettings]
    observer: Observer
    senders: Senders
    """Of large batches, one at a time."""
    keep_s: float = KEEP_S
    clock: Callable[[], float] = time.time
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the senders have a batch."""


class InputGone(Exception):
    """The input file was deleted while its batch was worked on."""


class TakenAway(Exception):
    """Another worker has the batch."""


class Execution:
    """The work on one batch."""

    def __init__(self, place: Workplace, tenant: str, batch: Batch, renew: Callable[[], Awaitable[bool]]) -> None:
        """``renew()`` keeps the batch this worker's; False where it is no longer."""
        self._place = place
        self._renew = renew
        self._tenant = tenant
        self._batch = batch
        self._parts = place.batches.parts(tenant, batch.id)
        self._answered: set[str] = set()
        self._fresh: list[Answer] = []
        """Answers that are not kept yet."""
        self._many_fresh = asyncio.Event()
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Work until the batch is over. When it is cancelled, what is answered is kept for the next worker.

        Raises:
            TakenAway: the batch is another worker's.
            OSError: the storage does not do its part.
        """
        was_over = self._batch.over  # seen on the list just before another worker took it off
        try:
            if self._batch.status == "validating":
                await self._check()
            if self._batch.status == "in_progress":
                await self._answer()
            if self._batch.status == "finalizing":
                await self._finish()
        except InputGone:
            problem = "The input file was deleted while the batch was worked on."
            await self._fail((BatchError(code="input_file_not_found", message=problem),))
        await self._place.batches.close(self._tenant, self._batch.id)
        if self._batch.over and not was_over:
            self._place.observer.ended(self._batch.status)

    async def _check(self) -> None:
        check = await asyncio.to_thread(self._checked)
        counts = RequestCounts(total=check.total)
        if check.errors:
            await self._fail(tuple(check.errors), counts)
        else:
            await self._keep(status="in_progress", in_progress_at=self._now(), request_counts=counts)

    def _checked(self) -> Check:
        check = Check(self._batch.endpoint, self._place.settings().max_requests)
        with contextlib.closing(self._input()) as stream:
            check.see_all(stream)
        check.finish()
        return check

    async def _answer(self) -> None:
        await asyncio.to_thread(self._recall)
        work = asyncio.create_task(self._send())
        try:
            while (ending := await self._ending(work)) is None:
                await self._rest(work)
                await self._keep_answers()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            # Also where this is cancelled, since the next worker would ask for these again.
            await self._keep_answers()
        await self._keep(status="finalizing", finalizing_at=self._now(), ending=ending)

    async def _send(self) -> None:
        """Have the lines answered that are not. Only one batch at a time has processes, or they could fill the pod."""
        is_large = 0 < self._place.settings().ray_data.from_lines <= self._batch.request_counts.total
        if is_large and not self._place.sending.locked():
            async with self._place.sending:
                await self._send_by_ray_data()
        else:
            await self._send_here()

    async def _send_here(self) -> None:
        answering = Answering(
            self._batch.id,
            self._place.sender(self._tenant),
            self._place.paces,
            lambda: self._place.settings().concurrency,
            lambda refused: self._place.observer.replied(refused=refused),
        )
        async with contextlib.aclosing(self._lines()) as lines:
            await answering.answer(lines, self._deliver)

    async def _send_by_ray_data(self) -> None:
        left = await asyncio.to_thread(self._left_to_send)
        if not left.pieces:
            return
        async with contextlib.aclosing(self._place.senders.answers(left)) as answers:
            async for sent in answers:
                for _ in range(sent.refused):
                    self._place.observer.replied(refused=True)
                for answer in sent.answers:
                    self._place.observer.replied(refused=False)
                    await self._deliver(answer)

    def _left_to_send(self) -> Left:
        settings, total = self._place.settings(), self._batch.request_counts.total
        most = piece_lines(total)
        with contextlib.closing(self._input()) as stream:
            found = tuple(pieces(stream, self._answered, most))
        path = self._place.files.path(self._tenant, self._batch.input_file_id)
        return Left(self._tenant, self._batch.id, path, found, most, settings.concurrency, settings.ray_data.senders)

    async def _ending(self, work: asyncio.Task[None]) -> Ending | None:
        """How the batch ends, if it does now."""
        if work.done():
            work.result()
            return "completed"
        cancelled_at = await self._place.batches.cancelled_at(self._tenant, self._batch.id)
        if cancelled_at is not None:
            self._batch = self._batch.model_copy(update={"cancelling_at": cancelled_at})
            return "cancelled"
        return "expired" if self._place.clock() >= self._batch.expires_at else None

    async def _rest(self, work: asyncio.Task[None]) -> None:
        """Until there is something to keep, or to look at."""
        many = asyncio.create_task(self._many_fresh.wait())
        left_s = max(0.0, self._batch.expires_at - self._place.clock())
        await asyncio.wait([work, many], timeout=min(self._place.keep_s, left_s), return_when=asyncio.FIRST_COMPLETED)
        many.cancel()

    def _recall(self) -> None:
        """What earlier workers have answered."""
        completed = sum(1 for _ in self._parts.records("output", self._answered))
        failed = sum(1 for _ in self._parts.records("errors", self._answered))
        self._count(completed, failed)

    async def _lines(self) -> AsyncGenerator[Line, None]:
        """The lines that are not answered yet."""
        stream = await asyncio.to_thread(self._input)
        try:
            some = blocks(stream)
            while (block := await asyncio.to_thread(next, some, None)) is not None:
                for _, text in block:
                    line = read(text)
                    if line.custom_id not in self._answered:
                        yield line
        finally:
            await asyncio.to_thread(stream.close)

    async def _deliver(self, answer: Answer) -> None:
        self._answered.add(answer.custom_id)
        self._fresh.append(answer)
        if len(self._fresh) >= KEEP_ANSWERS:
            self._many_fresh.set()

    async def _keep_answers(self) -> None:
        answers, self._fresh = self._fresh, []
        self._many_fresh.clear()
        if not answers:
            return
        await asyncio.to_thread(self._parts.write, answers)
        failed = sum(answer.outcome == "errors" for answer in answers)
        counts = self._batch.request_counts
        self._count(counts.completed + len(answers) - failed, counts.failed + failed)
        await self._keep()

    async def _finish(self) -> None:
        stored = await self._place.batches.stored(self._tenant, self._batch.id)
        if stored is None or stored.over:
            raise TakenAway  # and the parts may be gone
        ending = self._batch.ending or "completed"
        kept_s = self._kept_s()
        seen: set[str] = set()
        counts = {"output": 0, "errors": 0}

        def counted(what: str, records: Iterator[bytes]) -> Iterator[bytes]:
            for record in records:
                counts[what] += 1
                yield record

        def errors() -> Iterator[bytes]:
            yield from counted("errors", self._parts.records("errors", seen))
            if ending in _UNANSWERED:
                yield from self._left(seen, *_UNANSWERED[ending])

        files, batch = self._place.files, self._batch.id
        output = counted("output", self._parts.records("output", seen))
        output_file_id = await files.add_result(self._tenant, batch, "output", output, kept_s)
        error_file_id = await files.add_result(self._tenant, batch, "errors", errors(), kept_s)
        self._count(counts["output"], counts["errors"])
        await self._keep(
            status=ending,
            output_file_id=output_file_id,
            error_file_id=error_file_id,
            **{f"{ending}_at": self._now()},
        )

    def _left(self, seen: set[str], code: str, message: str) -> Iterator[bytes]:
        """The records of the lines that nobody has answered."""
        with contextlib.closing(self._input()) as stream:
            for block in blocks(stream):
                for _, text in block:
                    line: Line = read(text)
                    if line.custom_id not in seen:
                        yield unanswered(self._batch.id, line.custom_id, code, message)

    def _count(self, completed: int, failed: int) -> None:
        counts = self._batch.request_counts.model_copy(update={"completed": completed, "failed": failed})
        self._batch = self._batch.model_copy(update={"request_counts": counts})

    async def _fail(self, errors: tuple[BatchError, ...], counts: RequestCounts | None = None) -> None:
        counts = counts or self._batch.request_counts
        await self._keep(status="failed", failed_at=self._now(), errors=Errors(data=errors), request_counts=counts)

    async def _keep(self, **changes: Any) -> None:
        self._batch = self._batch.model_copy(update=changes)
        # A write that was begun goes on when this is cancelled; the next one must not overtake it.
        await asyncio.shield(self._write(self._batch))

    async def _write(self, batch: Batch) -> None:
        async with self._writing:
            if not await self._renew():  # else nobody takes it for longer than a write takes
                raise TakenAway
            await self._place.batches.keep(self._tenant, batch)

    def _input(self) -> BinaryIO:
        try:
            return self._place.files.open(self._tenant, self._batch.input_file_id)
        except FileNotFoundError:
            raise InputGone from None

    def _kept_s(self) -> int:
        most = self._place.settings().retention_hours * 3600
        return min(self._batch.results_kept_s or most, most)

    def _now(self) -> int:
        return int(self._place.clock())
