"""The files of a large collection of documents, as uploads: a folder, or a bucket below a prefix.

An upload is small enough to be held in memory a few times over, and large enough to keep the embedder busy.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pyarrow import fs

from serve_apps.rag.documents import type_of_name

#: An upload at most, whichever comes first. A file or a line that is larger goes alone.
UPLOAD_ITEMS = 200
UPLOAD_BYTES = 4 * 1024 * 1024

#: Files with a document a line.
LINES_EXTENSIONS = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Item:
    """A file, or a line of one."""

    name: str
    """The file's path below the source, which becomes the document's id; for a line, where it stands."""
    content: bytes
    is_line: bool = False


@dataclass(frozen=True, slots=True)
class Upload:
    """Documents that are sent together: files, or lines."""

    items: tuple[Item, ...]

    @property
    def is_lines(self) -> bool:
        """Whether these are lines of JSON."""
        return self.items[0].is_line

    def alone(self) -> list["Upload"]:
        """Each document by itself."""
        return [Upload((item,)) for item in self.items]


class Corpus:
    """The files below ``source``."""

    def __init__(self, source: str) -> None:
        """``source``: a folder, or what Arrow opens: ``s3://bucket/prefix``, ``gs://bucket/prefix``.

        Credentials and region come from the environment, as for every tool of that cloud.

        Raises:
            OSError: there is no such folder, or it cannot be listed.
            ValueError: not a source.
        """
        if "://" in source:
            self._files, base = fs.FileSystem.from_uri(source)
        else:
            self._files, base = fs.LocalFileSystem(), str(Path(source).resolve())
        self._base = base.rstrip("/")
        found = self._files.get_file_info(fs.FileSelector(self._base, recursive=True))
        paths = sorted(info.path for info in found if info.is_file)
        self.paths = [path for path in paths if _is_read(path)]
        """Of the files that can be read, sorted, so that a second run goes the same way."""
        self.skipped = len(paths) - len(self.paths)
        """Files of a format that is not read."""
        self.unreadable: list[tuple[str, str]] = []
        """Files that could not be opened so far, and why."""

    def uploads(self) -> Iterator[Upload]:
        """All documents; each file is read when its turn comes."""
        pending: list[Item] = []
        size = 0
        for item in self._items():
            full = len(pending) == UPLOAD_ITEMS or size + len(item.content) > UPLOAD_BYTES
            if pending and (full or pending[0].is_line != item.is_line):
                yield Upload(tuple(pending))
                pending, size = [], 0
            pending.append(item)
            size += len(item.content)
        if pending:
            yield Upload(tuple(pending))

    def _items(self) -> Iterator[Item]:
        for path in self.paths:
            name = path.removeprefix(f"{self._base}/")
            try:
                with self._files.open_input_stream(path, compression=None) as stream:
                    if path.lower().endswith(LINES_EXTENSIONS):
                        yield from _lines(name, stream)
                    else:
                        yield Item(name, stream.read())
            except OSError as error:
                self.unreadable.append((name, str(error)))


def _is_read(path: str) -> bool:
    hidden = path.rpartition("/")[2].startswith(".")
    return not hidden and bool(type_of_name(path) or path.lower().endswith(LINES_EXTENSIONS))


def _lines(name: str, stream: BinaryIO) -> Iterator[Item]:
    """The lines of a file that need not fit into memory."""
    rest = b""
    number = 0
    while block := stream.read(UPLOAD_BYTES):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            number += 1
            if line.strip():
                yield Item(f"{name}, line {number}", line, is_line=True)
    if rest.strip():
        yield Item(f"{name}, line {number + 1}", rest, is_line=True)
