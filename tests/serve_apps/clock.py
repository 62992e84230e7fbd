"""A clock that a test sets."""

from dataclasses import dataclass


@dataclass
class Clock:
    """Seconds, as a test moves them on."""

    now: float = 1_764_000_000

    def __call__(self) -> float:
        """The time now."""
        return self.now
