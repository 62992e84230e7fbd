import pytest

from bench.rag.quality import ndcg, recall

RELEVANT = {"a", "b"}


def test_ndcg_is_one_only_if_all_that_is_relevant_comes_first() -> None:
    assert ndcg(["b", "a", "x"], RELEVANT) == 1
    assert ndcg(["a", "x", "b"], RELEVANT) == pytest.approx((1 + 0.5) / (1 + 0.6309), abs=1e-4)
    assert ndcg(["x", "y"], RELEVANT) == 0


def test_ndcg_knows_nothing_below_its_depth() -> None:
    assert ndcg([*"123456789", "a", "b"], {"b"}) == 0
    assert ndcg(["a"], set(map(str, range(20))) | {"a"}) == pytest.approx(0.2201, abs=1e-4)


def test_recall_is_the_share_of_what_is_relevant() -> None:
    assert recall(["a", "x", "b"], RELEVANT, 2) == 0.5
    assert recall(["a", "x", "b"], RELEVANT, 3) == 1
