"""An ``Observer`` that remembers what it was told."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Recorded:
    """Everything that was reported, in order."""

    stages: list[tuple[str, str]] = field(default_factory=list)
    degradations: list[tuple[str, str]] = field(default_factory=list)
    chunks: list[tuple[str, int]] = field(default_factory=list)
    sources: list[tuple[str, int]] = field(default_factory=list)
    store_calls: list[bool] = field(default_factory=list)

    @contextmanager
    def stage(self, pipeline: str, stage: str) -> Iterator[None]:
        """Remember a stage that ended."""
        try:
            yield
        finally:
            self.stages.append((pipeline, stage))

    def degraded(self, pipeline: str, stage: str) -> None:
        """Remember a degraded answer."""
        self.degradations.append((pipeline, stage))

    def found(self, pipeline: str, sources: int) -> None:
        """Remember what a question found."""
        self.sources.append((pipeline, sources))

    def store_called(self, answered: bool) -> None:
        """Remember a call of a server."""
        self.store_calls.append(answered)

    def ingested(self, pipeline: str, chunks: int) -> None:
        """Remember written chunks."""
        self.chunks.append((pipeline, chunks))
