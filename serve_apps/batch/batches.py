"""The batches of all tenants: a record each, which only its worker changes, and a list of those that are not over.

A client's wish to cancel is an object of its own, so that nobody else writes the record.
"""

import asyncio
import time
from collections.abc import Callable

from serve_apps.batch.files import TENANTS, Files, home, page, read_all
from serve_apps.batch.objects import Batch, is_id, new_id, window_s
from serve_apps.batch.parts import Parts
from serve_apps.batch.storage import Storage
from serve_apps.common.errors import InvalidRequest, NotFound

_OPEN = "open"
#: How long an input must outlive the window, in seconds: until the lines that are left are told in the error file.
_OUTLIVES_S = 3600


class Batches:
    """Batches by tenant and id."""

    def __init__(self, storage: Storage, files: Files, clock: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._files = files
        self._clock = clock
        self._tenants: dict[str, str] = {}
        """Of the batches that were on the list when it was last read."""

    async def add(
        self,
        tenant: str,
        input_file: str,
        endpoint: str,
        window: str,
        metadata: dict[str, str] | None,
        kept_s: int | None,
    ) -> Batch:
        """A new batch, for whichever worker comes first.

        Raises:
            InvalidRequest: its input is not there, or not for as long as its window and an hour.
        """
        try:
            file = await self._files.find(tenant, input_file)
        except NotFound:
            raise InvalidRequest(
                f"No such File object: {input_file[:80]}", param="input_file_id", code="invalid_input_file"
            ) from None
        if file.purpose != "batch":
            raise InvalidRequest(
                "The input file must have the purpose batch.", param="input_file_id", code="invalid_input_file"
            )
        now = int(self._clock())
        expires_at = now + window_s(window)
        if file.expires_at < expires_at + _OUTLIVES_S:
            raise InvalidRequest(
                "The input file expires within an hour after the completion window; upload it again.",
                param="input_file_id",
                code="invalid_input_file",
            )
        batch = Batch(
            id=new_id("batch_"),
            endpoint=endpoint,
            input_file_id=input_file,
            completion_window=window,
            created_at=now,
            expires_at=expires_at,
            metadata=metadata,
            results_kept_s=kept_s,
        )
        # First the list: what is listed without a record is passed over, a record that is not listed would stay undone.
        await asyncio.to_thread(self._storage.write, f"{_OPEN}/{batch.id}", tenant.encode())
        await self.keep(tenant, batch)
        return batch

    async def find(self, tenant: str, batch_id: str) -> Batch:
        """A batch of the tenant, as it stands.

        Raises:
            NotFound: it has no such batch.
        """
        batch = await asyncio.to_thread(self._read, tenant, batch_id) if is_id(batch_id, "batch_") else None
        if batch is None:
            raise NotFound(f"No batch found with id '{batch_id[:80]}'.", code="batch_not_found")
        return batch

    async def stored(self, tenant: str, batch_id: str) -> Batch | None:
        """A batch's record, for its worker; None if there is none."""
        return await asyncio.to_thread(self._stored, tenant, batch_id)

    async def listed(self, tenant: str, *, after: str | None, limit: int) -> tuple[list[Batch], bool]:
        """Batches of the tenant, newest first, those after the one named, and whether there are more."""
        names = await asyncio.to_thread(self._storage.names, f"{home(tenant)}/batches")
        some, more = page(names, after=after, limit=limit, newest_first=True)
        return [batch async for batch in read_all(self._read, tenant, some)], more

    async def cancel(self, tenant: str, batch_id: str) -> Batch:
        """Have a batch end early; what is answered already it keeps.

        Raises:
            NotFound: the tenant has no such batch.
            InvalidRequest: it is over, or nearly.
        """
        batch = await self.find(tenant, batch_id)
        if batch.status == "cancelling":
            return batch
        if batch.over or batch.status == "finalizing":
            raise InvalidRequest(f"Cannot cancel a batch with status '{batch.status}'.", code="invalid_status")
        now = str(int(self._clock()))
        await asyncio.to_thread(self._storage.write, f"{_folder(tenant, batch_id)}/cancel", now.encode())
        return await self.find(tenant, batch_id)

    async def cancelled_at(self, tenant: str, batch_id: str) -> int | None:
        """When the client wished the batch to end; None if it did not."""
        return await asyncio.to_thread(self._cancelled_at, tenant, batch_id)

    async def keep(self, tenant: str, batch: Batch) -> None:
        """Write the record; its worker's to do."""
        path = f"{_folder(tenant, batch.id)}/batch.json"
        await asyncio.to_thread(self._storage.write, path, batch.model_dump_json().encode())

    def parts(self, tenant: str, batch_id: str) -> Parts:
        """What is answered of a batch."""
        return Parts(self._storage, f"{_folder(tenant, batch_id)}/parts")

    async def open(self) -> dict[str, str]:
        """The tenant of each batch that is not over, oldest first."""
        return await asyncio.to_thread(self._open)

    async def close(self, tenant: str, batch_id: str) -> None:
        """Take a batch that is over off the list, and forget how it came about."""
        await asyncio.to_thread(self.parts(tenant, batch_id).delete)
        await asyncio.to_thread(self._storage.delete, f"{_OPEN}/{batch_id}")

    def prune(self, kept_s: int) -> None:
        """Delete the batches that have been over for longer, of all tenants; waits for the storage."""
        for folder in self._storage.names(TENANTS):
            for batch_id in self._storage.names(f"{TENANTS}/{folder}/batches"):
                path = f"{TENANTS}/{folder}/batches/{batch_id}"
                record = self._storage.read(f"{path}/batch.json")
                ended_at = Batch.model_validate_json(record).ended_at if record is not None else None
                if ended_at is not None and ended_at + kept_s <= self._clock():
                    self._storage.delete_folder(path)

    def _open(self) -> dict[str, str]:
        listed: dict[str, str] = {}
        for name in self._storage.names(_OPEN):
            tenant = self._tenants.get(name) or (self._storage.read(f"{_OPEN}/{name}") or b"").decode()
            if tenant:
                listed[name] = tenant
        self._tenants = listed
        return listed

    def _read(self, tenant: str, batch_id: str) -> Batch | None:
        batch = self._stored(tenant, batch_id)
        if batch is not None and batch.status in ("validating", "in_progress"):
            cancelled_at = self._cancelled_at(tenant, batch_id)
            if cancelled_at is not None:
                return batch.model_copy(update={"status": "cancelling", "cancelling_at": cancelled_at})
        return batch

    def _stored(self, tenant: str, batch_id: str) -> Batch | None:
        record = self._storage.read(f"{_folder(tenant, batch_id)}/batch.json")
        return Batch.model_validate_json(record) if record is not None else None

    def _cancelled_at(self, tenant: str, batch_id: str) -> int | None:
        wished = self._storage.read(f"{_folder(tenant, batch_id)}/cancel")
        return int(wished) if wished is not None else None


def _folder(tenant: str, batch_id: str) -> str:
    return f"{home(tenant)}/batches/{batch_id}"
