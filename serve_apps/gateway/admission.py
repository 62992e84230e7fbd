"""How much one replica takes on at a time; beyond it callers are refused before they cost anything."""

from collections.abc import Iterator
from contextlib import contextmanager

from serve_apps.common.errors import RateLimited

#: When a refused caller may come back, in seconds.
RETRY_AFTER_S = 1


class Slots:
    """At most ``limit`` of something at a time. Nobody waits: a queue would only hide the overload."""

    def __init__(self, limit: int, what: str) -> None:
        """``what`` names the thing in the refusal, in the plural."""
        self.limit = limit
        self.taken = 0
        self._what = what

    @contextmanager
    def take(self, *, beyond_limit: bool = False) -> Iterator[None]:
        """Hold a slot; with ``beyond_limit`` even if none is free.

        Raises:
            RateLimited: every slot is taken.
        """
        if self.taken >= self.limit and not beyond_limit:
            raise RateLimited(
                f"The gateway is busy with {self.limit} {self._what}; try again later.",
                code="gateway_overloaded",
                retry_after_s=RETRY_AFTER_S,
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
