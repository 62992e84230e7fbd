from typing import Any

import pytest

from serve_apps.agent.config import Limits
from serve_apps.agent.progress import Progress, exhausted, is_last_turn, must_answer, plus, stopped, tokens_left
from serve_apps.common.prices import Price

LIMITS = Limits(steps=3, tool_calls=3, same_call=2, tokens=100, cost=0.5, wall_time_s=60)


def progress(*pending: str, **more: Any) -> Progress:
    state: dict[str, Any] = {"began_s": 1000.0, "steps": [], "done": [], "turns": 0, "usage": {}, "cost": 0.0, **more}
    return {**state, "pending": [{"key": key} for key in pending]}  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("state", "now_s", "ending"),
    [
        (progress(), 1059, None),
        (progress(), 1060, "wall_time"),
        (progress(usage={"total_tokens": 99}), 1001, None),
        (progress(usage={"total_tokens": 100}), 1001, "tokens"),
        (progress(cost=0.49), 1001, None),
        (progress(cost=0.5), 1001, "cost"),
    ],
)
def test_time_and_tokens_end_the_work(state: Progress, now_s: float, ending: str | None) -> None:
    assert exhausted(state, LIMITS, now_s) == ending


@pytest.mark.parametrize(
    ("state", "ending"),
    [
        (progress("a", done=["c", "d"]), None),
        (progress("a", "b", done=["c", "d"]), "tool_calls"),
        (progress("a", done=["a"]), None),
        (progress("a", done=["a", "a"]), "same_call"),
        (progress("b", done=["a", "a"]), None),
    ],
)
def test_too_many_calls_and_the_same_again_call_for_an_answer(state: Progress, ending: str | None) -> None:
    assert must_answer(state, LIMITS) == ending


def test_the_last_turn_is_known_before_it() -> None:
    assert [is_last_turn(progress(turns=turns), LIMITS) for turns in (0, 1, 2)] == [False, False, True]


def test_usages_add_up_whatever_they_leave_out() -> None:
    one = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert plus(one, {"prompt_tokens": 4, "prompt_tokens_details": None}) == {  # type: ignore[dict-item]
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_tokens": 3,
    }
    assert tokens_left(progress(usage=one), LIMITS) == 97


def test_no_more_tokens_are_asked_for_than_can_be_paid() -> None:
    assert tokens_left(progress(cost=0.395), LIMITS, Price(completion=10_000)) == 10
    assert tokens_left(progress(cost=0.49999), LIMITS, Price(completion=10_000)) == 1
    assert tokens_left(progress(cost=0.4), LIMITS, Price(prompt=10_000)) == 100


def test_an_end_without_an_answer_names_its_limit() -> None:
    assert stopped("wall_time", LIMITS) == "Stopped without an answer: the agent's limit of 60 s was reached."
    assert stopped("answered", LIMITS) == ""
