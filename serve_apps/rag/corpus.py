"""The files of a large collection of documents, as uploads: a folder, or a bucket below a prefix.

An upload is small enough to be held in memory a few times over, and large enough to keep the embedder busy.
"""

import sys
from collections.abc import Iterable, Iterator
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

#: What several read of one such file together is cut into, in bytes.
RANGE_BYTES = 1024 * 1024
#: How far the last line of a range is read on at a time, in bytes.
_TAIL_BYTES = 64 * 1024


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


@dataclass(frozen=True, slots=True)
class Piece:
    """A file, or of a file of lines those that begin in a range of its bytes."""

    path: str
    start: int = 0
    end: int = sys.maxsize

    @property
    def is_last(self) -> bool:
        """Whether the file ends with it."""
        return self.end == sys.maxsize


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that could not be opened, and why."""

    name: str
    reason: str


class Source:
    """A folder, or a bucket below a prefix."""

    def __init__(self, place: str) -> None:
        """``place``: a folder, or what Arrow opens: ``s3://bucket/prefix``, ``gs://bucket/prefix``.

        Credentials and region come from the environment, as for every tool of that cloud.

        Raises:
            OSError: it cannot be opened.
            ValueError: not a place.
        """
        if "://" in place:
            self._files, base = fs.FileSystem.from_uri(place)
        else:
            self._files, base = fs.LocalFileSystem(), str(Path(place).resolve())
        self._base = base.rstrip("/")

    def sizes(self) -> dict[str, int]:
        """The size of every file, in bytes, by path; sorted, so that a second run goes the same way.

        Raises:
            OSError: it cannot be listed.
        """
        found = self._files.get_file_info(fs.FileSelector(self._base, recursive=True))
        return {info.path: info.size for info in sorted(found, key=lambda info: info.path) if info.is_file}

    def uploads(self, pieces: Iterable[Piece], unreadable: list[Unreadable]) -> Iterator[Upload]:
        """The documents of ``pieces``, each of which is read when its turn comes; ``unreadable`` takes the others."""
        pending: list[Item] = []
        size = 0
        for item in self._items(pieces, unreadable):
            full = len(pending) == UPLOAD_ITEMS or size + len(item.content) > UPLOAD_BYTES
            if pending and (full or pending[0].is_line != item.is_line):
                yield Upload(tuple(pending))
                pending, size = [], 0
            pending.append(item)
            size += len(item.content)
        if pending:
            yield Upload(tuple(pending))

    def _items(self, pieces: Iterable[Piece], unreadable: list[Unreadable]) -> Iterator[Item]:
        for piece in pieces:
            name = piece.path.removeprefix(f"{self._base}/")
            try:
                with self._files.open_input_file(piece.path) as stream:
                    if _has_lines(piece.path):
                        yield from _lines(name, stream, piece)
                    else:
                        yield Item(name, stream.read())
            except OSError as error:
                unreadable.append(Unreadable(name, str(error)))


class Corpus:
    """The documents of a source: those of its files that can be read."""

    def __init__(self, place: str) -> None:
        """``place``: as of a `Source`, which raises as it says."""
        self._source = Source(place)
        sizes = self._source.sizes()
        self._sizes = {path: size for path, size in sizes.items() if _is_read(path)}
        self.files = len(self._sizes)
        """How many there are."""
        self.skipped = len(sizes) - self.files
        """Files of a format that is not read."""
        self.unreadable: list[Unreadable] = []
        """Of those that `uploads` came to."""

    def uploads(self) -> Iterator[Upload]:
        """All documents, one after the other."""
        return self._source.uploads((Piece(path) for path in self._sizes), self.unreadable)

    def shares(self) -> Iterator[list[Piece]]:
        """All documents, for several who read and send them: each share is about an upload."""
        share: list[Piece] = []
        share_size = 0
        for piece, size in self._pieces():
            full = len(share) == UPLOAD_ITEMS or share_size + size > UPLOAD_BYTES
            if share and (full or _has_lines(share[0].path) != _has_lines(piece.path)):
                yield share
                share, share_size = [], 0
            share.append(piece)
            share_size += size
        if share:
            yield share

    def _pieces(self) -> Iterator[tuple[Piece, int]]:
        """The pieces of all files, and the size of each, in bytes."""
        for path, size in self._sizes.items():
            start = 0
            while _has_lines(path) and start + RANGE_BYTES < size:
                yield Piece(path, start, start + RANGE_BYTES), RANGE_BYTES
                start += RANGE_BYTES
            yield Piece(path, start), size - start


def _is_read(path: str) -> bool:
    hidden = path.rpartition("/")[2].startswith(".")
    return not hidden and bool(type_of_name(path) or _has_lines(path))


def _has_lines(path: str) -> bool:
    return path.lower().endswith(LINES_EXTENSIONS)


def _lines(name: str, stream: BinaryIO, piece: Piece) -> Iterator[Item]:
    """The lines of a piece, which need not fit into memory; in the middle of a file they have no numbers."""
    for number, (at, line) in enumerate(_lines_from(stream, piece), 1):
        if at >= piece.end:
            return
        if at >= piece.start and line.strip():
            yield Item(f"{name}, byte {at}" if piece.start else f"{name}, line {number}", line, is_line=True)


def _lines_from(stream: BinaryIO, piece: Piece) -> Iterator[tuple[int, bytes]]:
    """Each line from the one on that ends or begins with ``piece``, and the byte at which it begins."""
    at = max(piece.start - 1, 0)
    stream.seek(at)
    rest = b""
    while block := stream.read(min(UPLOAD_BYTES, max(piece.end - stream.tell(), _TAIL_BYTES))):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield at, line
            at += len(line) + 1
    if rest:
        yield at, rest
