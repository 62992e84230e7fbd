"""Whether a tenant may send one more request, as arithmetic: GCRA for rates, leases for what runs, a sum for money.

The generic cell rate algorithm keeps one number per rate, the *theoretical arrival time* (TAT): when everything that
was taken so far would have been earned. It is a token bucket without a timer. A taken request moves the TAT on by its
cost, a refund moves it back, and a bill above the estimate puts it beyond the bucket: the tenant waits until it is
paid off.

Why no library: ``limits``, ``pyrate-limiter``, ``throttled-py`` and the Redis module ``redis-cell`` cannot give back
or charge later, and none asks for requests, tokens, concurrency and money in one atomic step and one round trip.

``take`` and ``settle`` below are for one process; ``TAKE`` and ``SETTLE`` are the same steps in Lua, which Redis runs
atomically. A property test plays random traffic to both and compares every answer.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

#: Units of tolerance, which undo the rounding of floats: costs are whole numbers.
ROUNDING = 0.05
#: How long a running request is believed to run without a sign from its replica, in seconds: a replica that is killed
#: gives its places back after that.
LEASE_S = 60.0


class Bucket(NamedTuple):
    """So many units at once, earned again at so many a second."""

    burst: float
    rate: float

    @classmethod
    def per_minute(cls, limit: int, shares: int = 1) -> "Bucket":
        """One of ``shares`` equal parts of ``limit`` a minute; one unit fits in any case."""
        return cls(max(1, limit // shares), limit / shares / 60)


class Bounds(NamedTuple):
    """What a tenant may take; None is no bound."""

    requests: Bucket | None = None
    tokens: Bucket | None = None
    running: int | None = None
    """Requests at a time."""
    budget: float | None = None
    """Money in a month."""


class Amounts(NamedTuple):
    """So many requests and tokens."""

    requests: float
    tokens: float


class Outcome(NamedTuple):
    """What was decided, and how full things are: after the request if it was let in, without it if not."""

    refused_by: str
    """``budget``, ``running``, ``requests`` or ``tokens``; empty: the request is in."""
    requests: float
    """Units in the bucket of requests, ``now``."""
    tokens: float
    """Units in the bucket of tokens, ``now``."""
    advanced: bool = False
    """Whether what was wanted in advance is taken, too."""


@dataclass(slots=True)
class Counters:
    """What is known of one tenant."""

    requests_tat: float = 0.0
    tokens_tat: float = 0.0
    leases: dict[str, float] = field(default_factory=dict)
    """When each running request is believed to be over, by its lease."""
    spent: float = 0.0
    """Money, this month."""


def level(tat: float, now: float, rate: float) -> float:
    """How many units are in a bucket, given its TAT."""
    return max(tat - now, 0.0) * rate


def fits(held: float, cost: float, burst: float) -> bool:
    """Whether ``cost`` more units go into a bucket that holds ``held``."""
    return held + cost <= burst + ROUNDING


def take(
    counters: Counters,
    bounds: Bounds,
    now: float,
    tokens: float,
    lease: str,
    advance: Amounts | None = None,
    places: Sequence[str] = (),
) -> Outcome:
    """Let one request with an estimate of ``tokens`` in, or refuse it and change nothing.

    The lease counts as running until it is settled, or until ``LEASE_S`` from ``now`` unless renewed. With the request
    goes its ``advance``, with leases for ``places``, as long as no more than half of any limit is used then.
    """
    requests, spare = bounds.requests, bounds.tokens
    requests_held = level(counters.requests_tat, now, requests.rate) if requests else 0.0
    tokens_held = level(counters.tokens_tat, now, spare.rate) if spare else 0.0
    if bounds.running is not None:
        for each in [each for each, until in counters.leases.items() if until <= now]:
            del counters.leases[each]
    if bounds.budget is not None and counters.spent >= bounds.budget:
        return Outcome("budget", requests_held, tokens_held)
    if bounds.running is not None and len(counters.leases) >= bounds.running:
        return Outcome("running", requests_held, tokens_held)
    if requests and not fits(requests_held, 1, requests.burst):
        return Outcome("requests", requests_held, tokens_held)
    if spare and not fits(tokens_held, tokens, spare.burst):
        return Outcome("tokens", requests_held, tokens_held)
    taken, advanced = 1.0, False
    if advance is not None:
        advanced = (
            (not requests or requests_held + 1 + advance.requests <= requests.burst / 2)
            and (not spare or tokens_held + tokens + advance.tokens <= spare.burst / 2)
            and (bounds.running is None or len(counters.leases) + 1 + len(places) <= bounds.running / 2)
        )
        if advanced:
            taken, tokens = 1 + advance.requests, tokens + advance.tokens
    if requests:
        counters.requests_tat = max(counters.requests_tat, now) + taken / requests.rate
        requests_held += taken
    if spare:
        counters.tokens_tat = max(counters.tokens_tat, now) + tokens / spare.rate
        tokens_held += tokens
    if bounds.running is not None:
        for each in (lease, *(places if advanced else ())):
            counters.leases[each] = now + LEASE_S
    return Outcome("", requests_held, tokens_held, advanced)


def settle(counters: Counters, bounds: Bounds, now: float, owed: Amounts, leases: Iterable[str]) -> None:
    """End requests: take what is ``owed`` beyond their estimates (give back, if negative) and free their places."""
    if bounds.requests and owed.requests:
        counters.requests_tat = _moved(counters.requests_tat, now, owed.requests, bounds.requests)
    if bounds.tokens and owed.tokens:
        counters.tokens_tat = _moved(counters.tokens_tat, now, owed.tokens, bounds.tokens)
    for lease in leases:
        counters.leases.pop(lease, None)


def _moved(tat: float, now: float, owed: float, bucket: Bucket) -> float:
    # What is given back cannot lie in the future of an empty bucket; what is owed begins now.
    return (max(tat, now) if owed > 0 else tat) + owed / bucket.rate


def wait_s(outcome: Outcome, bounds: Bounds, tokens: float) -> float:
    """When a refused request would fit, in seconds, if nothing else is taken; 0 if time alone does not help."""
    if outcome.refused_by == "requests" and bounds.requests:
        return max(0.0, outcome.requests + 1 - bounds.requests.burst) / bounds.requests.rate
    if outcome.refused_by == "tokens" and bounds.tokens:
        return max(0.0, outcome.tokens + tokens - bounds.tokens.burst) / bounds.tokens.rate
    return 0.0


def left(held: float, bucket: Bucket) -> int:
    """How many units still go in."""
    return max(0, math.floor(bucket.burst - held + ROUNDING))


#: Common to both scripts. Numbers go in and out as strings with 17 digits, which is every bit of a double. ``now`` is
#: Redis' clock, the only one that all replicas share, unless a test sets it. A bound of -1 is none.
_LUA = """
local function number(index) return tonumber(ARGV[index]) end
local function exact(value) return string.format('%.17g', value) end
local now = number(1)
if now < 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local function tat(key) return tonumber(redis.call('GET', key) or '0') end
local function keep(key, at)
  if at > now then
    redis.call('SET', key, exact(at), 'PX', math.ceil((at - now) * 1000) + 1000)
  else
    redis.call('DEL', key)
  end
end
"""

#: KEYS: requests, tokens, running, month. ARGV: now, burst and rate of requests, burst and rate of tokens, running,
#: budget, tokens, lease, seconds of a lease, requests and tokens in advance or -1, the leases of places in advance.
#: Answers: refused_by, requests, tokens, whether the advance was taken.
TAKE = (
    _LUA
    + """
local requests_burst, requests_rate = number(2), number(3)
local tokens_burst, tokens_rate = number(4), number(5)
local running, budget, tokens = number(6), number(7), number(8)
local requests, more_requests, more_tokens, advanced = 1, number(11), number(12), 0
local requests_tat, tokens_tat, requests_held, tokens_held, runs = 0, 0, 0, 0, 0
if requests_burst >= 0 then
  requests_tat = tat(KEYS[1])
  requests_held = math.max(requests_tat - now, 0) * requests_rate
end
if tokens_burst >= 0 then
  tokens_tat = tat(KEYS[2])
  tokens_held = math.max(tokens_tat - now, 0) * tokens_rate
end
local function outcome(refused_by) return {refused_by, exact(requests_held), exact(tokens_held), advanced} end
if running >= 0 then redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', exact(now)) end
if budget >= 0 and tonumber(redis.call('HGET', KEYS[4], 'cost') or '0') >= budget then return outcome('budget') end
if running >= 0 then
  runs = redis.call('ZCARD', KEYS[3])
  if runs >= running then return outcome('running') end
end
if requests_burst >= 0 and requests_held + 1 > requests_burst + ROUNDING then return outcome('requests') end
if tokens_burst >= 0 and tokens_held + tokens > tokens_burst + ROUNDING then return outcome('tokens') end
if more_requests >= 0
  and (requests_burst < 0 or requests_held + 1 + more_requests <= requests_burst / 2)
  and (tokens_burst < 0 or tokens_held + tokens + more_tokens <= tokens_burst / 2)
  and (running < 0 or runs + 1 + #ARGV - 12 <= running / 2) then
  requests, tokens, advanced = 1 + more_requests, tokens + more_tokens, 1
end
if requests_burst >= 0 then
  keep(KEYS[1], math.max(requests_tat, now) + requests / requests_rate)
  requests_held = requests_held + requests
end
if tokens_burst >= 0 then
  keep(KEYS[2], math.max(tokens_tat, now) + tokens / tokens_rate)
  tokens_held = tokens_held + tokens
end
if running >= 0 then
  local lease_s = number(10)
  redis.call('ZADD', KEYS[3], exact(now + lease_s), ARGV[9])
  if advanced == 1 then
    for index = 13, #ARGV do redis.call('ZADD', KEYS[3], exact(now + lease_s), ARGV[index]) end
  end
  redis.call('EXPIRE', KEYS[3], math.ceil(lease_s))
end
return outcome('')
""".replace("ROUNDING", str(ROUNDING))
)

#: KEYS: requests, tokens, running. ARGV: now, rate of requests, rate of tokens, requests and tokens that are owed, then
#: the leases.
SETTLE = (
    _LUA
    + """
local function move(key, rate, owed)
  if rate < 0 or owed == 0 then return end
  local begins = tat(key)
  if owed > 0 then begins = math.max(begins, now) end
  keep(key, begins + owed / rate)
end
move(KEYS[1], number(2), number(4))
move(KEYS[2], number(3), number(5))
for index = 6, #ARGV do redis.call('ZREM', KEYS[3], ARGV[index]) end
"""
)

#: KEYS: running. ARGV: now, seconds of a lease, then the leases, of which those that are known are prolonged.
RENEW = (
    _LUA
    + """
local until_s = exact(now + number(2))
for index = 3, #ARGV do redis.call('ZADD', KEYS[1], 'XX', until_s, ARGV[index]) end
redis.call('EXPIRE', KEYS[1], math.ceil(number(2)))
"""
)
