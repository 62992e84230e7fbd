import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_apps.rag.passages import MAX_UNIT_CHARS, blocks, parts


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One. Two! Three?\nFour.", [["One. ", "Two! ", "Three?\n", "Four.\n"]]),
        ('He said "no." Then left.', [['He said "no." ', "Then left.\n"]]),
        ("E.g. J. Smith, see 1.5 m.", [["E.g. J. Smith, see 1.5 m.\n"]]),
        ("一。二！三", [["一。", "二！", "三\n"]]),  # noqa: RUF001
        ("First.\n\nSecond.", [["First.\n"], ["Second.\n"]]),
        ("Take:\n- tea\n  from Assam. Or not.\n- milk", [["Take:\n"], ["- tea\n  from Assam. Or not.\n", "- milk\n"]]),
        ("1. one\n2) two", [["1. one\n", "2) two\n"]]),
        ("| a | b |\n| 1. | 2 |", [["| a | b |\n", "| 1. | 2 |\n"]]),
        ("See:\n```\na\n\n- b\n```\nThen. Go.", [["See:\n"], ["```\n", "a\n", "- b\n", "```\n"], ["Then. ", "Go.\n"]]),
        ("````\n```\na\n````", [["````\n", "```\n", "a\n", "````\n"]]),
        ("```\nnever closed\n\nend", [["```\n", "never closed\n", "end\n"]]),
        ("\n \n", []),
    ],
)
def test_a_text_is_cut_where_its_kind_allows(text: str, found: list[list[str]]) -> None:
    assert blocks(text) == found


@given(st.text(st.sampled_from("aZ.!? \n-|`~1")))
def test_nothing_but_white_space_is_lost(text: str) -> None:
    joined = "".join(unit for units in blocks(text) for unit in units)
    assert "".join(joined.split()) == "".join(text.split())


def test_a_unit_is_bounded() -> None:
    units = [unit for block in blocks("word " * 3000) for unit in block]
    assert max(map(len, units)) <= MAX_UNIT_CHARS
    assert all(unit.endswith(("word ", "word \n")) for unit in units)


@given(st.text("ab \n字", min_size=2), st.integers(1, 9))
def test_parts_are_shorter_and_lose_nothing(unit: str, number: int) -> None:
    cut = parts(unit, number)
    assert "".join(cut) == unit
    assert max(map(len, cut)) < len(unit)


def test_parts_end_at_spaces() -> None:
    assert parts("one two three four", 2) == ["one two ", "three ", "four"]
