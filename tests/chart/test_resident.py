import pytest

from tests.chart.resident import Resident


def test_each_request_is_answered_by_the_same_program() -> None:
    program = Resident(["sh", "-c", "while read asked; do echo $$ $asked; done"])
    first, second = (program.ask(f"{word}\n").split() for word in ("one", "two"))
    assert (first[1], second[1]) == ("one", "two")
    assert first[0] == second[0]


def test_a_program_that_ends_has_not_answered() -> None:
    with pytest.raises(RuntimeError, match="sh has ended, with exit 3"):
        Resident(["sh", "-c", "read asked; printf cut; exit 3"]).ask("one\n")
