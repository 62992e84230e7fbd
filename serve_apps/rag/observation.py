"""What the app reports about its work; ``app`` turns it into Ray's metrics."""

from contextlib import AbstractContextManager
from typing import Protocol


class Observer(Protocol):
    """Told what happens, by pipeline."""

    def stage(self, pipeline: str, stage: str) -> AbstractContextManager[None]:
        """Times one stage of an answer: rewrite, embed, keywords, search, feedback, rerank or generate."""

    def degraded(self, pipeline: str, stage: str) -> None:
        """An answer is given without ``stage``."""

    def found(self, pipeline: str, sources: int) -> None:
        """A question was searched for, and ``sources`` chunks are put before the model."""

    def ingested(self, pipeline: str, chunks: int) -> None:
        """``chunks`` were written to the vector store."""
