"""The files of all tenants. A tenant's are below a folder that is made of its name, and nobody else finds them."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import BinaryIO, Literal, TypeVar

from serve_apps.batch.objects import UNFINISHED_S, File, is_id, made_at, new_id, result_id
from serve_apps.batch.storage import BLOCK_BYTES, Storage
from serve_apps.common.errors import InvalidRequest, NotFound, TooLarge

TENANTS = "tenants"
#: Records that are read at a time for a list.
_READ_AT_A_TIME = 16

Found = TypeVar("Found")


class Files:
    """Files by tenant and id."""

    def __init__(self, storage: Storage, clock: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._clock = clock

    async def add(
        self, tenant: str, name: str, content: BinaryIO, *, most_bytes: int, most_stored: int, kept_s: int
    ) -> File:
        """A new file with what is left to read of ``content``.

        Raises:
            TooLarge: it is larger than ``most_bytes``, or with it the tenant's files are larger than ``most_stored``.
                Uploads that begin at the same time may all find room that is enough for one of them.
            InvalidRequest: it is empty.
        """
        stored = await asyncio.to_thread(self._storage.size, f"{home(tenant)}/files")
        file_id = new_id("file-")
        path = _content(tenant, file_id)
        try:
            size = await asyncio.to_thread(self._copy, content, path, most_bytes, most_stored - stored)
        except TooLarge:
            await asyncio.to_thread(self._storage.delete_folder, _folder(tenant, file_id))  # a bucket has the beginning
            raise
        if not size:
            raise InvalidRequest("The file is empty.", param="file", code="empty_file")
        now = int(self._clock())
        file = File(
            id=file_id, bytes=size, created_at=now, expires_at=now + kept_s, filename=name[:255], purpose="batch"
        )
        await self._keep(tenant, file)
        return file

    async def find(self, tenant: str, file_id: str) -> File:
        """A file of the tenant.

        Raises:
            NotFound: it has no such file.
        """
        file = await asyncio.to_thread(self._read, tenant, file_id) if is_id(file_id, "file-") else None
        if file is None:
            raise NotFound(f"No such File object: {file_id[:80]}", param="id", code="file_not_found")
        return file

    async def listed(
        self, tenant: str, *, after: str | None, limit: int, newest_first: bool
    ) -> tuple[list[File], bool]:
        """Files of the tenant by their age, those after the one named, and whether there are more."""
        names = await asyncio.to_thread(self._storage.names, f"{home(tenant)}/files")
        some, more = page(names, after=after, limit=limit, newest_first=newest_first)
        return [file async for file in read_all(self._read, tenant, some)], more

    async def content(self, tenant: str, file_id: str) -> AsyncIterator[bytes]:
        """What is in a file, block by block.

        Raises:
            FileNotFoundError: it is gone.
        """
        stream = await asyncio.to_thread(self._storage.open, _content(tenant, file_id))
        try:
            while block := await asyncio.to_thread(stream.read, BLOCK_BYTES):
                yield block
        finally:
            await asyncio.to_thread(stream.close)

    def open(self, tenant: str, file_id: str) -> BinaryIO:
        """What is in a file; waits for the storage.

        Raises:
            FileNotFoundError: it is gone.
        """
        return self._storage.open(self.path(tenant, file_id))

    def path(self, tenant: str, file_id: str) -> str:
        """Where what is in a file is in the storage, whether it is there or not."""
        return _content(tenant, file_id)

    async def delete(self, tenant: str, file_id: str) -> None:
        """Delete a file of the tenant.

        Raises:
            NotFound: it has no such file.
        """
        await self.find(tenant, file_id)
        await asyncio.to_thread(self._forget, tenant, file_id)

    async def add_result(
        self, tenant: str, batch: str, what: Literal["output", "errors"], records: Iterable[bytes], kept_s: int
    ) -> str | None:
        """A batch's own file with these lines, and its id; None where there is no line. Written again, it is the same.

        ``records`` are made in a thread.
        """
        file_id = result_id(batch, what)
        size = await asyncio.to_thread(self._write, _content(tenant, file_id), iter(records))
        if not size:
            return None
        now = int(self._clock())
        name = f"{batch}_{'output' if what == 'output' else 'error'}.jsonl"
        file = File(
            id=file_id, bytes=size, created_at=now, expires_at=now + kept_s, filename=name, purpose="batch_output"
        )
        await self._keep(tenant, file)
        return file_id

    def prune(self) -> None:
        """Delete what is kept no longer, of all tenants; waits for the storage."""
        for folder in self._storage.names(TENANTS):
            for file_id in self._storage.names(f"{TENANTS}/{folder}/files"):
                path = f"{TENANTS}/{folder}/files/{file_id}"
                record = self._storage.read(f"{path}/file.json")
                unfinished = made_at(file_id) + UNFINISHED_S
                expires_at = File.model_validate_json(record).expires_at if record is not None else unfinished
                if expires_at <= self._clock():
                    self._storage.delete_folder(path)

    async def _keep(self, tenant: str, file: File) -> None:
        # After the content: a file that is known is whole.
        await asyncio.to_thread(self._storage.write, _record(tenant, file.id), file.model_dump_json().encode())

    def _copy(self, content: BinaryIO, path: str, most_bytes: int, room_bytes: int) -> int:
        def pieces() -> Iterator[bytes]:
            size = 0
            while piece := content.read(BLOCK_BYTES):
                size += len(piece)
                if size > most_bytes:
                    raise TooLarge(f"The file is larger than the {most_bytes} bytes a file may have.", param="file")
                if size > room_bytes:
                    problem = (
                        f"Your files leave room for {max(room_bytes, 0)} bytes, and this one is larger; delete some."
                    )
                    raise TooLarge(problem, param="file", code="storage_limit_exceeded")
                yield piece

        return self._write(path, pieces())

    def _write(self, path: str, pieces: Iterator[bytes]) -> int:
        first = next(pieces, b"")
        if not first:
            return 0
        with self._storage.writing(path) as stream:
            stream.write(first)
            size = len(first)
            for piece in pieces:
                stream.write(piece)
                size += len(piece)
        return size

    def _read(self, tenant: str, file_id: str) -> File | None:
        record = self._storage.read(_record(tenant, file_id))
        file = File.model_validate_json(record) if record is not None else None
        return file if file is not None and file.expires_at > self._clock() else None

    def _forget(self, tenant: str, file_id: str) -> None:
        self._storage.delete(_record(tenant, file_id))
        self._storage.delete_folder(_folder(tenant, file_id))


def home(tenant: str) -> str:
    """The folder of a tenant. A hash: a name from somebody else's token must not become a path."""
    return f"{TENANTS}/{hashlib.sha256(tenant.encode()).hexdigest()[:40]}"


def page(names: list[str], *, after: str | None, limit: int, newest_first: bool) -> tuple[list[str], bool]:
    """Some of the names, which sort by age, and whether there are more."""
    names = sorted(names, reverse=newest_first)
    if after is not None:
        names = [name for name in names if (name < after if newest_first else name > after)]
    return names[:limit], len(names) > limit


async def read_all(read: Callable[[str, str], Found | None], tenant: str, names: list[str]) -> AsyncIterator[Found]:
    """What ``read(tenant, name)`` finds, in the order of the names."""
    for start in range(0, len(names), _READ_AT_A_TIME):
        reads = (asyncio.to_thread(read, tenant, name) for name in names[start : start + _READ_AT_A_TIME])
        for found in await asyncio.gather(*reads):
            if found is not None:
                yield found


def _folder(tenant: str, file_id: str) -> str:
    return f"{home(tenant)}/files/{file_id}"


def _record(tenant: str, file_id: str) -> str:
    return f"{_folder(tenant, file_id)}/file.json"


def _content(tenant: str, file_id: str) -> str:
    return f"{_folder(tenant, file_id)}/content"
