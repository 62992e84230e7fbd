"""Objects in a bucket or a folder. Each appears whole or not at all, so a process that is killed leaves no half of one.

Arrow opens both; credentials and region of a bucket come from the environment or the cloud's identity.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from pyarrow import fs

#: What is being written in a folder.
_PARTIAL = ".partial-"
BLOCK_BYTES = 1024 * 1024


class Storage:
    """What is below ``uri``. Its methods wait for the storage: call them in a thread."""

    def __init__(self, uri: str) -> None:
        """``uri``: ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``file:///folder``.

        Raises:
            ValueError: not such a place.
        """
        self._files, base = fs.FileSystem.from_uri(uri)
        self._base = base.rstrip("/")
        self._local = isinstance(self._files, fs.LocalFileSystem)

    def read(self, path: str) -> bytes | None:
        """An object; None if there is none."""
        try:
            with self.open(path) as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def open(self, path: str) -> BinaryIO:
        """An object as a stream.

        Raises:
            FileNotFoundError: there is none.
        """
        return cast(BinaryIO, self._files.open_input_stream(self._at(path), compression=None))

    def read_range(self, path: str, start: int, size: int) -> bytes:
        """Some bytes of an object.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._files.open_input_file(self._at(path)) as file:
            return bytes(file.read_at(size, start))

    def files(self, ending: str) -> dict[str, int]:
        """The sizes of the objects directly below with this ending, in the order of their names.

        Where the storage itself is an object, that is all: its path is empty.

        Raises:
            FileNotFoundError: there is nothing.
        """
        own = self._files.get_file_info(self._base)
        if own.type == fs.FileType.File:
            return {"": own.size}
        found = self._files.get_file_info(fs.FileSelector(self._base))
        return {one.base_name: one.size for one in sorted(found, key=lambda one: one.path) if one.path.endswith(ending)}

    def write(self, path: str, content: bytes) -> None:
        """Write an object, over another one if there is one."""
        with self.writing(path) as stream:
            stream.write(content)

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """Write an object piece by piece; it appears at the end.

        In a bucket, what was written before an error appears, too: what makes an object known is written after it.
        """
        if not self._local:
            with self._files.open_output_stream(self._at(path), compression=None) as stream:
                yield cast(BinaryIO, stream)
            return
        whole = Path(self._at(path))
        whole.parent.mkdir(parents=True, exist_ok=True)
        partial = whole.with_name(f"{_PARTIAL}{uuid.uuid4().hex}")
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(whole)
        finally:
            partial.unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        """What is directly below a folder, sorted; nothing where there is no such folder."""
        selector = fs.FileSelector(self._at(folder), allow_not_found=True)
        found = (info.base_name for info in self._files.get_file_info(selector))
        return sorted(name for name in found if not name.startswith(_PARTIAL))

    def size(self, folder: str) -> int:
        """The bytes of all that is below a folder, what is being written included."""
        selector = fs.FileSelector(self._at(folder), allow_not_found=True, recursive=True)
        return sum(info.size or 0 for info in self._files.get_file_info(selector))

    def delete(self, path: str) -> None:
        """Delete an object, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            self._files.delete_file(self._at(path))

    def delete_folder(self, folder: str) -> None:
        """Delete all that is below a folder, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            self._files.delete_dir(self._at(folder))

    def _at(self, path: str) -> str:
        return f"{self._base}/{path}".rstrip("/")
