"""Copies of requests for a version that nobody waits for, whose answers are dropped.

A copy goes straight to its upstream: it waits in no queue, counts for no tenant's limits or usage and for no canary
rule, and never delays the request it is a copy of. The header ``x-llm-shadow`` tells it from the real ones in the
upstream's own log; clients cannot send it, as nothing that begins with ``x-llm-``.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from serve_apps.common.errors import ServingError
from serve_apps.gateway.relay import Outbound, Relay

logger = logging.getLogger(__name__)

SHADOW_HEADER = "x-llm-shadow"
#: How long a copy may take in all, in seconds: a shadow that hangs must not hold its place for ever.
LONGEST_S = 600.0


class Shadows:
    """Sends copies, a bounded number at a time."""

    def __init__(self, relay: Relay, limit: int, count: Callable[[str, str], None]) -> None:
        """``count(version, status)`` hears of every copy: its status, ``none`` without an answer, or ``dropped``."""
        self._relay = relay
        self._limit = limit
        self._count = count
        self._under_way: set[asyncio.Task[None]] = set()

    def send(self, version: str, made: Callable[[], Outbound]) -> None:
        """Send a copy and forget it; if too many are under way, it is not even made, and counted as dropped.

        A copy that cannot be made is the shadow's misfortune, and nothing to the request it would be a copy of.
        """
        if len(self._under_way) >= self._limit:
            self._count(version, "dropped")
            return
        try:
            outbound = made()
        except ServingError as error:
            logger.warning("a shadow gets no copy", extra={"version": version, "problem": error.message})
            self._count(version, "none")
            return
        marked = replace(outbound, headers={**outbound.headers, SHADOW_HEADER: "true"})
        copy = asyncio.get_running_loop().create_task(self._discard(version, marked))
        self._under_way.add(copy)
        copy.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Give up what is under way."""
        for copy in self._under_way:
            copy.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _discard(self, version: str, outbound: Outbound) -> None:
        status = 0
        try:
            async with asyncio.timeout(LONGEST_S):
                status = await self._relay.discard(outbound)
        except TimeoutError:
            pass
        except Exception:
            logger.exception("a shadow's copy failed", extra={"version": version})
        self._count(version, str(status) if status else "none")
