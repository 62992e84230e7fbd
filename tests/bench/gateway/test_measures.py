from collections.abc import Iterator
from typing import cast

import pytest

from bench.gateway.load import Load, Outcome
from bench.gateway.measures import CEILING_TRIES, PACE_MS, PROBE_INTERVAL_S, QUICK, Client, Effort, Failed, ceiling
from bench.gateway.systems import System

SYSTEM = System("ours", "this gateway", 1, dict)
IDLE_MS, STEPS = 10.0, (10, 20, 40)


class Answering:
    """In place of the load generator: its probes wait as they are told, one try after another."""

    def __init__(self, *waits_ms: float) -> None:
        self._waits: Iterator[float] = iter(waits_ms)

    def send(self, *loads: Load) -> list[Outcome]:
        wait_ms = next(self._waits)
        probes = Outcome(first_ms=[wait_ms] * 100) if wait_ms else Outcome(failed=1, problem="503")
        return [probes, Outcome(whole_ms=[500.0])][: len(loads)]


def found(*waits_ms: float) -> dict[str, float]:
    """The ceiling of a system whose tries have these percentiles."""
    answering = Answering(*waits_ms)
    result = ceiling(cast(Client, answering), SYSTEM, QUICK, STEPS)
    assert next(answering._waits, None) is None, "all tries were needed"
    return result


@pytest.mark.parametrize(
    ("waits_ms", "tokens_per_s"),
    [
        ((10, 15, 19), 4000),  # never above
        ((10, 21, 22, 23, 19, 19), 1900),
        ((10, 90, 80, 19.5, 19, 18, 30, 40, 40, 0, 0), 2049),  # a hiccup at 20 streams, and then the ceiling
        ((10, 90, 19, 18, 19, 30, 19), 4000),
        ((0, 0, 0, 0, 0), 1000),  # failures at once
    ],
)
def test_a_step_is_above_the_ceiling_in_three_tries_of_five(waits_ms: tuple[float, ...], tokens_per_s: float) -> None:
    result = found(*[IDLE_MS] * CEILING_TRIES, *waits_ms)
    assert result["ceiling_tokens_per_s"] == pytest.approx(tokens_per_s, rel=0.01)


def test_a_hiccup_of_the_idle_system_does_not_count() -> None:
    hiccup = 5 * IDLE_MS
    assert found(hiccup, IDLE_MS, IDLE_MS, hiccup, IDLE_MS, 10, 10, 10)["idle_probe_ms_p99"] == IDLE_MS


def test_an_idle_system_that_refuses_has_no_ceiling() -> None:
    with pytest.raises(Failed, match="503"):
        found(0)


def test_probes_see_every_part_of_a_step_alike() -> None:
    probes = int(Effort().ceiling_step_s / PROBE_INTERVAL_S)
    phases = [number * PROBE_INTERVAL_S * 1000 / PACE_MS % 1 for number in range(probes)]
    in_each_tenth = [sum(int(phase * 10) == tenth for phase in phases) for tenth in range(10)]
    assert min(in_each_tenth) >= probes // 10 - 2
