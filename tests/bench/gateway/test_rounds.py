import pytest

from bench.gateway.measures import Failed
from bench.gateway.rounds import Rounds, order
from bench.gateway.systems import System


def system(name: str) -> System:
    return System(name, name, 1, dict)


def test_every_round_begins_with_another_system() -> None:
    assert [order(3, number) for number in range(4)] == [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]


def test_every_system_is_measured_once_in_every_round() -> None:
    rounds, asked = Rounds(), []

    def measure(one: System) -> dict[str, float]:
        asked.append(one.name)
        return {"cost": float(len(asked))}

    rounds.run([system("a"), system("b")], 2, measure)
    assert asked == ["a", "b", "b", "a"]
    assert rounds.figures == {"a": {"cost": [1.0, 4.0]}, "b": {"cost": [2.0, 3.0]}}
    assert rounds.failures == {}


def test_a_system_that_fails_is_left_out_whole_and_the_others_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    rounds, asked = Rounds(), []

    def measure(one: System) -> dict[str, float]:
        asked.append(one.name)
        if one.name == "a" and asked.count("a") == 2:
            raise Failed("a: 1 of 2 requests failed: HTTP/1.1 500")
        return {"cost": 1.0}

    rounds.run([system("a"), system("b")], 3, measure)
    assert rounds.figures == {"b": {"cost": [1.0, 1.0, 1.0]}}
    assert rounds.failures == {"a": "a: 1 of 2 requests failed: HTTP/1.1 500"}
    assert asked.count("a") == 2
    assert "left out: a: 1 of 2 requests failed: HTTP/1.1 500" in capsys.readouterr().err


def test_of_a_round_that_is_interrupted_nothing_is_kept() -> None:
    rounds, asked = Rounds(), []

    def measure(one: System) -> dict[str, float]:
        asked.append(one.name)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return {"cost": float(len(asked))}

    with pytest.raises(KeyboardInterrupt):
        rounds.run([system("a"), system("b")], 3, measure)
    assert rounds.figures == {"a": {"cost": [1.0]}, "b": {"cost": [2.0]}}
    assert rounds.complete == 1
