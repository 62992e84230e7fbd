"""Medians, spreads and percentiles of rounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from statistics import median


@dataclass(frozen=True)
class Figure:
    """A number that was measured once in every round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """What is reported."""
        return median(self.rounds)

    @property
    def spread(self) -> float:
        """Highest less lowest round, as a part of the median; 0 where that is 0."""
        return (max(self.rounds) - min(self.rounds)) / abs(self.median) if self.median else 0.0

    def document(self) -> dict[str, object]:
        """As JSON has it."""
        return {
            "median": significant(self.median),
            "spread": round(self.spread, 3),
            "rounds": [significant(one) for one in self.rounds],
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of ``values`` that at least ``percent`` of them do not exceed.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)  # rounded up
    return ordered[max(int(rank), 1) - 1]


def ratio(ours: Sequence[float] | None, theirs: Sequence[float] | None) -> float | None:
    """The median of the rounds' ratios: what disturbs a round disturbs both sides of it. None if either is missing."""
    if not ours or not theirs:
        return None
    return significant(median(one / other for one, other in zip(ours, theirs, strict=True)))


def difference(ours: Sequence[float] | None, theirs: Sequence[float] | None) -> float | None:
    """The median of the rounds' differences. None if either is missing."""
    if not ours or not theirs:
        return None
    return significant(median(one - other for one, other in zip(ours, theirs, strict=True)))


def crossing(loads: Sequence[float], values: Sequence[float], limit: float) -> float:
    """The load at which ``values``, measured at rising ``loads``, first exceed ``limit``; else the last load.

    Between two steps it is interpolated, with both axes logarithmic.
    """
    for index, value in enumerate(values):
        if value > limit:
            if index == 0:
                return loads[0]
            below, above = values[index - 1], value
            part = 1.0 if below <= 0 else _between(below, above, limit)
            return float(loads[index - 1] * (loads[index] / loads[index - 1]) ** part)
    return loads[-1]


def _between(below: float, above: float, limit: float) -> float:
    return log(limit / below) / log(above / below)


def significant(value: float) -> float:
    """Four digits: more than any round is worth."""
    return float(f"{value:.4g}")
