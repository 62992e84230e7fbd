"""What a batch has answered so far, as objects that are never changed: what is written outlives whoever wrote it.

A worker that is killed loses the answers since its last part; its lines are asked again. If two ever worked on one
batch, a line may stand in two parts; whoever reads them takes the first.
"""

import time
import uuid
from collections.abc import Iterator

import orjson

from serve_apps.batch.answering import Answer, Outcome
from serve_apps.batch.lines import blocks
from serve_apps.batch.storage import Storage

OUTCOMES: tuple[Outcome, ...] = ("output", "errors")


class Parts:
    """The parts of one batch, below one folder. Its methods wait for the storage: call them in a thread."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage = storage
        self._folder = folder

    def write(self, answers: list[Answer]) -> None:
        """Keep answers."""
        for outcome in OUTCOMES:
            if records := b"".join(answer.record for answer in answers if answer.outcome == outcome):
                name = f"{time.time_ns():020d}-{uuid.uuid4().hex}"
                self._storage.write(f"{self._folder}/{outcome}/{name}.jsonl", records)

    def records(self, outcome: Outcome, seen: set[str]) -> Iterator[bytes]:
        """The records of one outcome, each line's first; adds their custom ids to ``seen``, and skips those there."""
        for name in self._storage.names(f"{self._folder}/{outcome}"):
            with self._storage.open(f"{self._folder}/{outcome}/{name}") as part:
                for block in blocks(part):
                    for _, record in block:
                        custom_id: str = orjson.loads(record)["custom_id"]
                        if custom_id not in seen:
                            seen.add(custom_id)
                            yield record + b"\n"

    def delete(self) -> None:
        """Delete them all."""
        self._storage.delete_folder(self._folder)
