import pytest

from bench.gateway.figures import Figure, crossing, difference, percentile, ratio


def test_a_figure_is_the_median_of_its_rounds_and_their_spread() -> None:
    document = Figure((10.0, 12.0, 11.0)).document()
    assert document == {"median": 11.0, "spread": 0.182, "rounds": [10.0, 12.0, 11.0]}


def test_a_figure_that_is_zero_has_no_spread() -> None:
    assert Figure((0.0, 0.0)).spread == 0


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (99, 99), (100, 100), (1, 1), (0, 1)])
def test_a_percentile_is_one_of_the_values(percent: float, expected: int) -> None:
    assert percentile(range(100, 0, -1), percent) == expected


def test_the_99th_percentile_of_few_values_is_the_largest() -> None:
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine was twice as slow in the second round: the ratio does not notice, that of the medians would.
    assert ratio([20.0, 40.0, 22.0], [10.0, 20.0, 10.0]) == 2.0


def test_a_difference_is_taken_within_each_round() -> None:
    assert difference([2.0, 4.0, 3.5], [1.0, 3.0, 2.0]) == 1.0


@pytest.mark.parametrize("compare", [ratio, difference])
def test_what_was_not_measured_is_compared_with_nothing(compare: object) -> None:
    assert callable(compare)
    assert compare(None, [1.0]) is None
    assert compare([1.0], None) is None
    assert compare([1.0], []) is None


def test_systems_with_other_numbers_of_rounds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="longer"):
        ratio([1.0], [1.0, 2.0])


def test_a_ceiling_lies_between_the_steps_around_the_limit() -> None:
    assert crossing([100, 200, 400], [1.0, 2.0, 8.0], 4.0) == pytest.approx(200 * 2**0.5)


def test_a_limit_that_is_met_exactly_is_not_exceeded() -> None:
    assert crossing([100, 200], [1.0, 4.0], 4.0) == 200


def test_a_first_step_above_the_limit_is_the_ceiling() -> None:
    assert crossing([100, 200], [5.0, 9.0], 4.0) == 100


def test_what_never_exceeds_the_limit_has_its_ceiling_at_the_last_step() -> None:
    assert crossing([100, 200], [1.0, 1.0], 4.0) == 200
