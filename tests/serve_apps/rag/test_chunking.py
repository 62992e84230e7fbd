import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_apps.rag import chunking
from serve_apps.rag.chunking import MAX_CHUNK_BYTES, Chunk, count_words, first_words
from serve_apps.rag.sections import Section


def tokens(text: str) -> int:
    """A token a word, a sign, or five letters."""
    return len(re.findall(r"\w{1,5}|[^\w\s]", text))


def sizes(texts: Iterable[str], max_tokens: int) -> dict[str, int]:
    counted: dict[str, int] = {}
    todo = list(texts)
    while todo:
        counted |= {text: tokens(text) for text in todo}
        todo = chunking.too_long(todo, counted, max_tokens)
    return counted


def cut(*sections: Section, max_tokens: int = 20, overlap: int = 0) -> list[Chunk]:
    outlines = chunking.outline(sections)
    counted = sizes((text for outline in outlines for text in outline.texts()), max_tokens)
    return chunking.chunks("doc", outlines, counted, max_tokens, overlap)


def sentences(begin: int, end: int) -> str:
    """Sentences of five tokens."""
    return " ".join(f"It is w{number:03}." for number in range(begin, end))


def test_a_long_section_is_cut_between_sentences_with_overlap() -> None:
    texts = [chunk.text for chunk in cut(Section(sentences(0, 9)), overlap=6)]
    assert texts == [sentences(0, 5), sentences(4, 9)]


def test_what_is_too_long_to_repeat_is_not() -> None:
    texts = [chunk.text for chunk in cut(Section(sentences(0, 9)), overlap=3)]
    assert texts == [sentences(0, 5), sentences(5, 9)]


def test_a_section_that_fits_exactly_is_one_chunk() -> None:
    assert [chunk.text for chunk in cut(Section(sentences(0, 5)))] == [sentences(0, 5)]


def test_a_chunk_knows_its_document_place_heading_and_page() -> None:
    section = Section(sentences(0, 9), ("A", "B"), page=3)
    assert cut(section)[1] == Chunk("doc", 1, sentences(4, 8), "A > B", 3)


def test_what_is_embedded_begins_with_the_heading() -> None:
    assert Chunk("doc", 0, "text", "A > B").passage == "A > B\ntext"
    assert Chunk("doc", 0, "text").passage == "text"


def test_a_chunk_ends_before_a_paragraph_that_would_be_cut() -> None:
    paragraphs = f"{sentences(0, 3)}\n\n{sentences(3, 6)}"
    assert [chunk.text for chunk in cut(Section(paragraphs))] == [sentences(0, 3), sentences(3, 6)]


def test_a_paragraph_is_cut_rather_than_a_chunk_left_half_empty() -> None:
    paragraphs = f"{sentences(0, 2)}\n\n{sentences(2, 6)}"
    assert [chunk.text for chunk in cut(Section(paragraphs))] == [
        f"{sentences(0, 2)}\n\n{sentences(2, 5)}",
        sentences(5, 6),
    ]


def test_rows_items_and_lines_of_code_stay_whole() -> None:
    for line in ("| one | two |", "- one two three!", "x = one(two)"):
        lines = [line] * 12
        text = "\n".join(["```", *lines, "```"] if line.startswith("x") else lines)
        whole = {line for chunk in cut(Section(text)) for line in chunk.text.split("\n")}
        assert whole <= {line, "```"}


def test_a_sentence_that_no_chunk_can_hold_is_cut_at_spaces() -> None:
    words = [f"w{number:03}" for number in range(50)]
    texts = [chunk.text for chunk in cut(Section(" ".join(words)))]
    assert " ".join(texts).split() == words


def test_chunks_do_not_cross_sections() -> None:
    texts = [chunk.text for chunk in cut(Section(sentences(0, 2)), Section(sentences(2, 4)))]
    assert texts == [sentences(0, 2), sentences(2, 4)]


def test_small_sections_join_under_the_headings_they_share() -> None:
    joined = cut(Section("one", ("A", "B"), page=1), Section("two", ("A", "C", "D"), page=2))
    assert joined == [Chunk("doc", 0, "B\none\n\nC > D\ntwo", "A", 1)]


def test_small_sections_that_do_not_fit_together_stay_apart() -> None:
    assert len(cut(Section("one"), Section(sentences(0, 5)))) == 2


def test_line_breaks_and_indentation_survive() -> None:
    code = "```\n    def f():\n        return 1\n```"
    assert cut(Section(code))[0].text == code


def test_text_without_spaces_is_cut_too() -> None:
    texts = [chunk.text for chunk in cut(Section("字" * 600))]
    assert "".join(texts) == "字" * 600
    assert max(map(tokens, texts)) <= 20


def test_headings_that_would_crowd_out_the_text_are_left_out_from_the_outside() -> None:
    headings = tuple(sentences(number, number + 1).rstrip(".") for number in range(3))
    assert cut(Section("text", headings))[0].heading == headings[2]
    assert cut(Section("text", (sentences(0, 9),)))[0].heading == ""
    assert cut(Section("text", ("x" * 400,)), max_tokens=1000)[0].heading == ""


def test_a_chunk_never_outgrows_the_stores_text_field() -> None:
    texts = [chunk.text for chunk in cut(Section("字" * 24 + (" " * 100 + "字" * 24) * 900), max_tokens=8000)]
    assert max(len(text.encode()) for text in texts) <= MAX_CHUNK_BYTES
    assert sum(text.count("字") for text in texts) == 901 * 24


@given(
    st.lists(
        st.tuples(
            st.text(st.sampled_from("abcdefgh.!?  \n|-`1字"), min_size=1, max_size=300),
            st.lists(st.text("abc d", min_size=1, max_size=30), max_size=3),
        ),
        max_size=5,
    ),
    st.integers(16, 60),
    st.integers(0, 20),
)
def test_no_passage_is_longer_than_the_embedder_reads_and_no_word_is_lost(
    given_sections: list[tuple[str, list[str]]], max_tokens: int, overlap: int
) -> None:
    sections = [Section(text, tuple(heading)) for text, heading in given_sections if text.strip()]
    found = cut(*sections, max_tokens=max_tokens, overlap=min(overlap, max_tokens // 2))
    assert all(tokens(chunk.passage) <= max_tokens for chunk in found)
    assert all(chunk.text for chunk in found)
    letters = "".join("".join(chunk.text.split()) for chunk in found)
    for section in sections:
        assert set("".join(section.text.split())) <= set(letters)


@pytest.mark.parametrize(("limit", "kept"), [(2, "one two"), (3, "one two\nthree"), (9, "one two\nthree")])
def test_the_first_words_of_a_text(limit: int, kept: str) -> None:
    assert first_words("one two\nthree", limit) == kept


def test_a_long_run_counts_as_several_words() -> None:
    assert count_words("x" * 48 + " y") == 3
