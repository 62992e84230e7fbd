"""Reciprocal-rank fusion: one order from several, without comparing their scores.

Cormack, Clarke and Büttcher, *Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods*, 2009.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

#: The paper's constant: how little the very first ranks weigh more than those that follow.
K = 60

T = TypeVar("T", bound=Hashable)


def fused(rankings: Iterable[Sequence[T]]) -> list[T]:
    """Everything in ``rankings``, best first; what ties stands in the order of the first ranking that has it."""
    scores: defaultdict[T, float] = defaultdict(float)
    for ranking in rankings:
        for rank, each in enumerate(ranking, 1):
            scores[each] += 1 / (K + rank)
    return sorted(scores, key=lambda each: -scores[each])
