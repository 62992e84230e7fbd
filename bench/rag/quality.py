"""How good a ranking is, with binary relevance."""

import math
from collections.abc import Sequence, Set


def ndcg(ranking: Sequence[str], relevant: Set[str], depth: int = 10) -> float:
    """Normalised discounted cumulative gain: 1 if all that is relevant comes first."""
    gain = sum(1 / math.log2(rank + 1) for rank, each in enumerate(ranking[:depth], 1) if each in relevant)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(depth, len(relevant)) + 1))


def recall(ranking: Sequence[str], relevant: Set[str], depth: int) -> float:
    """The share of what is relevant among the first ``depth``."""
    return len(relevant & set(ranking[:depth])) / len(relevant)
