"""The work of one replica: it takes up batches that nobody works on, and tells that it lives while it does."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from redis.exceptions import RedisError

from serve_apps.batch.execution import Execution, TakenAway, Workplace
from serve_apps.batch.leases import Leases
from serve_apps.batch.objects import UNFINISHED_S, made_at
from serve_apps.common.redis import LEASE_S, end

#: Between two looks for what is kept no longer, in seconds.
PRUNE_S = 3600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often a replica tells that it lives, and looks for batches; in seconds."""

    renew_s: float = LEASE_S / 3
    look_s: float = LEASE_S / 3


class Worker:
    """The batches one replica works on."""

    def __init__(self, place: Workplace, leases: Leases, rhythm: Rhythm | None = None) -> None:
        self._place = place
        self._leases = leases
        self._rhythm = rhythm or Rhythm()
        self._working: dict[str, asyncio.Task[None]] = {}
        self._tenants: dict[str, str] = {}
        """Of the batches that are worked on."""
        self._background: list[asyncio.Task[None]] = []
        self._nudged = asyncio.Event()

    def look_after(self) -> None:
        """Take up batches from now on."""
        self._background = [asyncio.create_task(self._look()), asyncio.create_task(self._prune())]

    def nudge(self) -> None:
        """There is a new batch."""
        self._nudged.set()

    async def close(self) -> None:
        """Leave all batches to the other replicas, with what is answered."""
        await end([*self._background, *self._working.values()])
        await self._leases.close()

    async def _look(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._rhythm.look_s):
                    await self._nudged.wait()
            self._nudged.clear()
            try:
                await self._take_up()
            except Exception:
                logger.exception("batches cannot be looked after")

    async def _take_up(self) -> None:
        waiting = await self._place.batches.open()
        for batch_id in self._working:
            waiting.pop(batch_id, None)
        while waiting and len(self._working) < self._place.settings().max_batches:
            batch_id = next_of(waiting, self._tenants)
            tenant = waiting.pop(batch_id)
            if await self._leases.take(batch_id):
                self._work_on(tenant, batch_id)

    def _work_on(self, tenant: str, batch_id: str) -> None:
        task = asyncio.create_task(self._work(tenant, batch_id))
        self._working[batch_id] = task
        self._tenants[batch_id] = tenant
        task.add_done_callback(lambda _: self._forget(batch_id))

    def _forget(self, batch_id: str) -> None:
        del self._working[batch_id], self._tenants[batch_id]
        self._nudged.set()

    async def _work(self, tenant: str, batch_id: str) -> None:
        """Work on a batch that is this replica's, until it is over or somebody else's."""
        work = asyncio.create_task(self._execute(tenant, batch_id))
        try:
            while not work.done():
                await asyncio.wait([work], timeout=self._rhythm.renew_s)
                if not work.done() and not await self._leases.renew(batch_id):
                    raise TakenAway
            await work
        except TakenAway:
            logger.warning("a batch was taken away", extra={"batch": batch_id})
        except Exception as error:
            # Whatever it is, the batch is not over: it is taken up again when the lease has run out.
            logger.exception("a batch is left for later", extra={"batch": batch_id, "problem": str(error)})
            await asyncio.sleep(self._rhythm.look_s)
        finally:
            await end([work])
            if not work.cancelled():
                work.exception()  # seen
            with contextlib.suppress(OSError, RedisError):
                await self._leases.release(batch_id)

    async def _execute(self, tenant: str, batch_id: str) -> None:
        batch = await self._place.batches.stored(tenant, batch_id)
        if batch is not None:
            logger.info("a batch is taken up", extra={"batch": batch_id, "status": batch.status})
            await Execution(self._place, tenant, batch, lambda: self._leases.renew(batch_id)).run()
        elif made_at(batch_id) + UNFINISHED_S < self._place.clock():
            await self._place.batches.close(tenant, batch_id)
        else:  # it is just being made
            await asyncio.sleep(self._rhythm.look_s)

    async def _prune(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._place.files.prune)
                kept_s = self._place.settings().retention_hours * 3600
                await asyncio.to_thread(self._place.batches.prune, kept_s)
            except Exception:
                logger.exception("old files cannot be deleted")
            await asyncio.sleep(PRUNE_S)


def next_of(waiting: Mapping[str, str], working: Mapping[str, str]) -> str:
    """The batch to take up next: of the tenant that has the fewest under way, the oldest.

    Args:
        waiting: the tenant of each batch nobody works on, oldest first; not empty.
        working: the tenant of each that is worked on.
    """
    under_way = Counter(working.values())
    return min(waiting, key=lambda batch: under_way[waiting[batch]])
