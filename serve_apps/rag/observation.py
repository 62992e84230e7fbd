"""What the app reports about its work; ``app`` turns it into Ray's metrics."""

from contextlib import AbstractContextManager
from typing import Protocol


class Observer(Protocol):
    """Told what happens, by pipeline."""

    def stage(self, pipeline: str, stage: str) -> AbstractContextManager[None]:
        """Times one stage of an answer: embed, search, rerank or generate."""

    def degraded(self, pipeline: str, stage: str) -> None:
        """An answer is given without ``stage``."""

    def ingested(self, pipeline: str, chunks: int) -> None:
        """``chunks`` were written to the vector store."""
