"""What a client is told about its limits: OpenAI's headers on every answer, and why a request is refused."""

import math

from serve_apps.common.errors import RateLimited
from serve_apps.gateway import gcra
from serve_apps.gateway.gcra import Bounds, Outcome
from serve_apps.gateway.headers import RawHeaders

#: When a tenant with too many requests under way may come back, in seconds: nobody knows when one ends.
RUNNING_RETRY_S = 1

_REQUESTS, _TOKENS = (
    tuple(f"x-ratelimit-{what}-{name}".encode() for what in ("limit", "remaining", "reset"))
    for name in ("requests", "tokens")
)


class LimitReached(RateLimited):
    """A tenant has taken all it may, for now. ``type`` says of what, as OpenAI's does."""

    def __init__(self, message: str, retry_after_s: float, headers: RawHeaders, code: str) -> None:
        super().__init__(message, code=code, retry_after_s=max(1, math.ceil(retry_after_s)))
        self._headers = {name.decode(): value.decode() for name, value in headers}

    def headers(self) -> dict[str, str]:
        """As for every refusal, and ``x-ratelimit-*``."""
        return super().headers() | self._headers


class RequestsReached(LimitReached):
    """Requests: in a minute, or at a time."""

    type = "requests"


class TokensReached(LimitReached):
    """Tokens in a minute."""

    type = "tokens"


class BudgetReached(LimitReached):
    """Money in a month. OpenAI's and Anthropic's clients are told not to try again by themselves."""

    type = "insufficient_quota"

    def headers(self) -> dict[str, str]:
        """As for every limit, and ``x-should-retry: false``."""
        return super().headers() | {"x-should-retry": "false"}


def headers(outcome: Outcome, bounds: Bounds) -> RawHeaders:
    """OpenAI's headers: the limit, what is left of it and when all of it will be.

    https://platform.openai.com/docs/guides/rate-limits
    """
    headers: RawHeaders = []
    for (limit, remaining, reset), held, bucket in (
        (_REQUESTS, outcome.requests, bounds.requests),
        (_TOKENS, outcome.tokens, bounds.tokens),
    ):
        if bucket is not None:
            headers.append((limit, b"%d" % bucket.burst))
            headers.append((remaining, b"%d" % gcra.left(held, bucket)))
            headers.append((reset, duration(held / bucket.rate).encode()))
    return headers


def refusal(outcome: Outcome, bounds: Bounds, tokens: int, headers: RawHeaders, month_ends_s: float) -> LimitReached:
    """Why a request is refused, and when it would not be.

    Args:
        outcome: what refused it.
        bounds: the tenant's.
        tokens: what it would have reserved.
        headers: for the refusal.
        month_ends_s: seconds to the next month.
    """
    if outcome.refused_by == "budget":
        return BudgetReached(
            f"You exceeded your current quota: this month's budget of {bounds.budget:g} is spent. "
            "GET /v1/usage says on what; it begins anew with the month (UTC).",
            month_ends_s,
            headers,
            "insufficient_quota",
        )
    if outcome.refused_by == "running":
        return RequestsReached(
            f"Rate limit reached on concurrent requests: Limit {bounds.running}. Try again when one of them is over.",
            RUNNING_RETRY_S,
            headers,
            "rate_limit_exceeded",
        )
    wait_s = gcra.wait_s(outcome, bounds, tokens)
    if outcome.refused_by == "requests" and bounds.requests:
        kind: type[LimitReached] = RequestsReached
        what, held, bucket, wanted = "requests per min (RPM)", outcome.requests, bounds.requests, 1
    else:
        assert bounds.tokens  # noqa: S101  # the only other bound
        kind = TokensReached
        what, held, bucket, wanted = "tokens per min (TPM)", outcome.tokens, bounds.tokens, tokens
    return kind(
        f"Rate limit reached on {what}: Limit {bucket.burst:g}, Used {held:.0f}, Requested {wanted}. "
        f"Please try again in {duration(wait_s)}.",
        wait_s,
        headers,
        "rate_limit_exceeded",
    )


def duration(seconds: float) -> str:
    """A time as OpenAI's headers write it: ``17ms``, ``1s``, ``8.64s``, ``6m0s``, ``1h0m30s``."""
    milliseconds = math.ceil(seconds * 1000 - 1e-3)
    if milliseconds < 1000:
        return f"{max(0, milliseconds)}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    rest = f"{milliseconds / 1000:g}s"
    if minutes < 60:
        return f"{minutes}m{rest}" if minutes else rest
    return f"{minutes // 60}h{minutes % 60}m{rest}"
