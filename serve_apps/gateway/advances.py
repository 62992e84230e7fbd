"""What a busy tenant is granted in advance, so that not each of its requests has to ask Redis.

A replica that lets many of a tenant's requests in takes more than it was asked for, once: what the tenant will want in
the next moment, going by the last one, and places for all that have come together. It lets requests in from that by
itself, and what they do not use goes back to it. Redis counts all of it as taken from the beginning, ``LIFE_S`` too
early at most: what is earned in that time is all that can be let in above a limit, and only for so long. What is left
is given back when the moment is over.

Until then another replica may refuse what would have fitted. So a replica never takes more than ``SHARE`` of a limit in
advance, and nothing where more than half of one is used: close to a limit each request asks, and the answer is exact.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from serve_apps.gateway.gcra import Amounts, Bounds, Bucket, Outcome

#: As much of a limit as one replica may hold for a tenant.
SHARE = 0.05
#: How long an advance is good for, in seconds: from one answer to the next of clients that send requests together.
LIFE_S = 2.0
#: How long before its end it is renewed, in seconds, so that no request has to wait for that.
EARLY_S = 0.4
#: Requests in that time from which it pays.
LEAST = 8


class Wanted(NamedTuple):
    """What Redis is asked for besides one request."""

    requests: float
    tokens: float
    places: int


class Advance:
    """One tenant's, in one replica: what is left of it, and how much there was to do of late."""

    __slots__ = (
        *("asking", "bounds", "places", "waiting", "_before", "_denied_s", "_ends_s", "_idle_places", "_outcome"),
        *("_requests", "_said_s", "_seen_requests", "_seen_since_s", "_seen_tokens", "_tokens"),
    )

    def __init__(self, bounds: Bounds) -> None:
        """Nothing yet, of a tenant with these limits."""
        self.bounds = bounds
        self.asking: asyncio.Future[Any] | None = None
        """Done when Redis has been asked for the next one; None while it is not."""
        self.waiting = 0
        """How many requests wait for that, besides the one it was asked with."""
        self._requests = self._tokens = 0.0
        self.places: list[str] = []
        """Leases that Redis counts and no request has."""
        self._idle_places = 0
        """As many of them as no request has needed since this began."""
        self._outcome = Outcome("", 0, 0)
        """How full Redis said that the buckets are with all of this in them, at ``_said_s``."""
        self._said_s = self._ends_s = 0.0
        self._denied_s = -LIFE_S
        """When Redis granted none, last."""
        self._seen_requests = self._seen_tokens = 0.0
        self._seen_since_s = 0.0
        self._before = Amounts(0, 0)
        """What was seen in the moment before this one."""

    def see(self, tokens: float, now: float) -> None:
        """Note a request with an estimate of ``tokens``."""
        elapsed_s = now - self._seen_since_s
        if elapsed_s >= LIFE_S:
            recent = elapsed_s < 2 * LIFE_S
            self._before = Amounts(self._seen_requests, self._seen_tokens) if recent else Amounts(0, 0)
            self._seen_since_s = now
            self._seen_requests = self._seen_tokens = 0.0
        self._seen_requests += 1
        self._seen_tokens += tokens

    def take(self, tokens: float, lease: str, now: float) -> tuple[Outcome, str] | None:
        """Let a request with an estimate of ``tokens`` in, if this is enough for it.

        Returns how full the buckets are with it, and its lease: ``lease``, or a place of this where those are counted.
        """
        bounds = self.bounds
        if (
            now >= self._ends_s
            or (bounds.requests and self._requests < 1)
            or (bounds.tokens and self._tokens < tokens)
            or (bounds.running is not None and not self.places)
        ):
            return None
        if bounds.running is not None:
            lease = self.places.pop()
            self._idle_places = min(self._idle_places, len(self.places))
        self._requests -= 1
        self._tokens -= tokens
        elapsed_s = now - self._said_s
        requests = _held(self._outcome.requests - self._requests, bounds.requests, elapsed_s)
        return Outcome("", requests, _held(self._outcome.tokens - self._tokens, bounds.tokens, elapsed_s)), lease

    def settle(self, owed: float, lease: str, now: float) -> bool:
        """End a request that used ``owed`` tokens more than its estimate; False: Redis must hear of it."""
        self._seen_tokens += max(0.0, owed)
        if now >= self._ends_s:
            return False
        bounds = self.bounds
        if bounds.tokens and self._tokens - owed > bounds.tokens.burst * SHARE:
            return False
        if bounds.running is not None:
            if len(self.places) >= int(bounds.running * SHARE):
                return False
            self.places.append(lease)
        self._tokens -= owed
        return True

    def may_pay(self, now: float) -> bool:
        """Whether an advance can be worth it; ``wanted`` knows once all that have come together have been seen."""
        bounds = self.bounds
        return (
            now - self._denied_s >= LIFE_S
            and (bounds.requests is None or bounds.requests.burst * SHARE >= LEAST)
            and (bounds.running is None or bounds.running * SHARE >= 1)
        )

    def wanted(self) -> Wanted | None:
        """What Redis is to be asked for besides one request; None where an advance does not pay."""
        bounds = self.bounds
        requests, tokens = max(self._before, (self._seen_requests, self._seen_tokens))
        each = tokens / requests if requests else 0.0
        if bounds.requests:
            requests = min(requests, int(bounds.requests.burst * SHARE))
        if bounds.tokens and each:
            requests = min(requests, int(bounds.tokens.burst * SHARE / each))
        if requests < LEAST:
            return None
        places = 0 if bounds.running is None else min(self.waiting, int(bounds.running * SHARE)) - len(self.places)
        return Wanted(max(0.0, requests - self._requests), max(0.0, requests * each - self._tokens), max(0, places))

    def begin(self, wanted: Wanted, places: Sequence[str], outcome: Outcome, now: float) -> list[str]:
        """Redis has granted what was ``wanted``, with leases for ``places``.

        Returns the places that were not needed of late, to be given back.
        """
        self._requests += wanted.requests
        self._tokens += wanted.tokens
        self._outcome, self._said_s, self._ends_s = outcome, now, now + LIFE_S
        idle, self.places = self.places[: self._idle_places], [*self.places[self._idle_places :], *places]
        self._idle_places = len(self.places)
        return idle

    def deny(self, now: float) -> None:
        """Redis has granted none: the limit is near, and so it will be for a while."""
        self._denied_s = now

    def is_ending(self, now: float) -> bool:
        """Whether it is time to ask for the next one."""
        return self.asking is None and self._ends_s - EARLY_S <= now < self._ends_s

    def is_over(self, now: float) -> bool:
        """Whether what is left must be given back."""
        return now >= self._ends_s

    def is_idle(self, now: float) -> bool:
        """Whether there has been nothing to do of late, nor anything left, nor on its way."""
        return self.asking is None and now - self._seen_since_s > 2 * LIFE_S and self._ends_s == 0

    def end(self) -> tuple[Amounts, list[str]]:
        """What is owed for what is left, mostly less than nothing, and the places to be given back."""
        owed, places = Amounts(-self._requests, -self._tokens), self.places
        self._requests = self._tokens = self._ends_s = 0.0
        self.places, self._idle_places = [], 0
        return owed, places


def _held(held: float, bucket: Bucket | None, elapsed_s: float) -> float:
    """What is in a bucket some time after it held so much."""
    return max(0.0, held - elapsed_s * bucket.rate) if bucket else 0.0
