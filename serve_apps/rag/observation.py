"""What the app reports about its work; ``app`` turns it into Ray's metrics."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from serve_apps.common import tracing


class Observer(Protocol):
    """Told what happens, by pipeline."""

    def stage(self, pipeline: str, stage: str) -> AbstractContextManager[None]:
        """Times one stage of an answer: rewrite, embed, keywords, search, feedback, rerank, figures, generate."""

    def degraded(self, pipeline: str, stage: str) -> None:
        """An answer is given without ``stage``."""

    def found(self, pipeline: str, sources: int) -> None:
        """A question was searched for, and ``sources`` chunks are put before the model."""

    def store_called(self, answered: bool) -> None:
        """A server with the documents answered a call, or did not."""

    def ingested(self, pipeline: str, chunks: int) -> None:
        """``chunks`` were written to the vector store."""


@contextmanager
def observed(observer: Observer, pipeline: str, stage: str) -> Iterator[None]:
    """A stage of an answer, timed and traced."""
    with tracing.span(f"rag {stage}", {"rag.pipeline": pipeline, "rag.stage": stage}), observer.stage(pipeline, stage):
        yield
