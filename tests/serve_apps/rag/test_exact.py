import numpy as np
import pytest

from serve_apps.rag.exact import ExactIndex
from serve_apps.rag.vector_store import Vector


def brute(vectors: dict[int, Vector], question: Vector, limit: int) -> list[int]:
    """The same by the definition of cosine, in double precision."""

    def cosine(row: int) -> float:
        vector = vectors[row].astype(np.float64)
        return float(vector @ question / np.linalg.norm(vector) / np.linalg.norm(question))

    return sorted(vectors, key=cosine, reverse=True)[:limit]


def test_it_finds_what_the_definition_says_through_additions_and_removals() -> None:
    random = np.random.default_rng(1)
    index = ExactIndex(16)
    there: dict[int, Vector] = {}
    for first in range(0, 1200, 40):
        added = 3 * random.standard_normal((40, 16), dtype=np.float32)
        rows = list(range(first, first + 40))
        index.add(rows, added)
        there.update(zip(rows, added, strict=True))
        gone = random.choice(list(there), 15, replace=False).tolist()
        index.remove(gone)
        for row in gone:
            del there[row]
        question = random.standard_normal(16, dtype=np.float32)
        assert [row for row, _ in index.search(question, 10)] == brute(there, question, 10)
    assert len(index) == len(there)


def test_it_searches_among_some_rows_only() -> None:
    index = ExactIndex(2)
    index.add([5, 6, 7], np.array([[1, 0], [1, 1], [0, 1]], dtype=np.float32))
    question = np.array([2, 0], dtype=np.float32)
    (first, near), (second, far) = index.search(question, 2, among=[7, 6])
    assert (first, second) == (6, 7)
    assert near == pytest.approx(0.5**0.5)
    assert far == pytest.approx(0)
    assert index.search(question, 2, among=[]) == []
    assert [row for row, _ in index.search(question, 9)] == [5, 6, 7]
    index.remove([5, 6, 7])
    assert index.search(question, 2) == []
