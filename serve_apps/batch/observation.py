"""What an app of batches tells whoever watches it."""

from typing import Protocol

from serve_apps.batch.objects import Status


class Observer(Protocol):
    """Hears what happens; the app makes metrics of it."""

    def replied(self, *, refused: bool) -> None:
        """A line was answered, or refused for the moment."""

    def ended(self, status: Status) -> None:
        """A batch is over."""
