from serve_apps.rag.fusion import fused


def test_what_two_rankings_have_comes_before_what_one_has_higher() -> None:
    assert fused([["a", "b", "c"], ["c", "d"]]) == ["c", "a", "b", "d"]


def test_what_ties_stands_in_the_first_rankings_order() -> None:
    assert fused([["a", "b"], ["b", "a"]]) == ["a", "b"]
    assert fused([["a"], ["b"]]) == ["a", "b"]


def test_one_ranking_stays_as_it_is() -> None:
    assert fused([["b", "a"], []]) == ["b", "a"]
    assert fused([]) == []
