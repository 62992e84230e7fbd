"""Where the replicas of the models answer, so that a request need not go through a proxy to reach one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A running replica's own port."""

    key: str
    """Names the replica for as long as it lives."""
    host: str
    port: int

    @property
    def address(self) -> tuple[str, int]:
        """What to dial."""
        return self.host, self.port


Targets = Mapping[str, tuple[Target, ...]]
#: Calls back with the targets of every application, now and whenever they change; returns what ends that.
Follow = Callable[[Callable[[Targets], None]], Callable[[], None]]


class Replicas:
    """The running replicas of every application, kept up to date from elsewhere: asking costs a dict lookup."""

    def __init__(self, follow: Follow | None = None) -> None:
        """``follow`` tells of changes; None where there are no replicas to know of."""
        self._follow = follow
        self._targets: Targets = {}
        self._stop: Callable[[], None] | None = None

    def open(self) -> None:
        """Begin to follow; needs the event loop that requests run on."""
        if self._follow is not None:
            self._stop = self._follow(self._replace)

    def close(self) -> None:
        """Follow no longer."""
        if self._stop is not None:
            self._stop()
            self._stop = None

    def targets(self, app: str) -> tuple[Target, ...]:
        """The running replicas of the application ``app``; none where they are not known: then its URL is asked."""
        return self._targets.get(app, ())

    def _replace(self, targets: Targets) -> None:
        self._targets = targets
