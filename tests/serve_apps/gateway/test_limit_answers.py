import pytest

from serve_apps.gateway.gcra import Bounds, Bucket, Outcome
from serve_apps.gateway.limit_answers import (
    BudgetReached,
    LimitReached,
    RequestsReached,
    TokensReached,
    duration,
    headers,
    refusal,
)

BOUNDS = Bounds(Bucket.per_minute(60), Bucket.per_minute(6_000), running=4, budget=12.5)


def test_an_answer_says_the_limit_what_is_left_and_when_all_of_it_will_be() -> None:
    assert dict(headers(Outcome("", requests=12.0, tokens=300.0), BOUNDS)) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"48",
        b"x-ratelimit-reset-requests": b"12s",
        b"x-ratelimit-limit-tokens": b"6000",
        b"x-ratelimit-remaining-tokens": b"5700",
        b"x-ratelimit-reset-tokens": b"3s",
    }


def test_tokens_that_are_owed_leave_none() -> None:
    told = dict(headers(Outcome("", requests=0.0, tokens=9_000.0), Bounds(tokens=BOUNDS.tokens)))
    assert told == {
        b"x-ratelimit-limit-tokens": b"6000",
        b"x-ratelimit-remaining-tokens": b"0",
        b"x-ratelimit-reset-tokens": b"1m30s",
    }


@pytest.mark.parametrize(
    ("refused_by", "kind", "message", "retry_after_s"),
    [
        (
            "requests",
            RequestsReached,
            "Rate limit reached on requests per min (RPM): Limit 60, Used 60, Requested 1. Please try again in 500ms.",
            1,
        ),
        (
            "tokens",
            TokensReached,
            "Rate limit reached on tokens per min (TPM): Limit 6000, Used 5500, Requested 700. Please try again in 2s.",
            2,
        ),
        (
            "running",
            RequestsReached,
            "Rate limit reached on concurrent requests: Limit 4. Try again when one of them is over.",
            1,
        ),
        (
            "budget",
            BudgetReached,
            "You exceeded your current quota: this month's budget of 12.5 is spent. GET /v1/usage says on what; it "
            "begins anew with the month (UTC).",
            90,
        ),
    ],
)
def test_a_refusal_says_what_was_reached_and_when_to_come_back(
    refused_by: str, kind: type[LimitReached], message: str, retry_after_s: int
) -> None:
    error = refusal(Outcome(refused_by, requests=59.5, tokens=5_500.0), BOUNDS, 700, [(b"x-ratelimit", b"1")], 89.5)
    assert type(error) is kind
    assert (error.message, error.retry_after_s) == (message, retry_after_s)
    assert error.headers()["x-ratelimit"] == "1"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0ms"),
        (0.0171, "18ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (8.64, "8.64s"),
        (59.9999, "1m0s"),
        (360, "6m0s"),
        (3630, "1h0m30s"),
        (86400, "24h0m0s"),
    ],
)
def test_times_are_written_as_openai_does(seconds: float, written: str) -> None:
    assert duration(seconds) == written
