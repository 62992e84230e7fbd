import pytest

from serve_apps.rag.chunking import MAX_CHUNK_BYTES, Chunk, chunks, count_words, first_words
from serve_apps.rag.config import Chunking
from serve_apps.rag.documents import Section


def numbered(begin: int, end: int) -> str:
    return " ".join(f"w{number}" for number in range(begin, end))


def cut(*sections: Section, max_words: int = 10, overlap_words: int = 2) -> list[Chunk]:
    return chunks("doc", sections, Chunking(max_words=max_words, overlap_words=overlap_words))


def test_a_long_section_is_cut_with_overlap() -> None:
    assert [chunk.text for chunk in cut(Section(numbered(0, 20)))] == [
        numbered(0, 10),
        numbered(8, 18),
        numbered(16, 20),
    ]


def test_a_section_that_fits_exactly_is_one_chunk() -> None:
    assert [chunk.text for chunk in cut(Section(numbered(0, 10)))] == [numbered(0, 10)]


def test_a_chunk_knows_its_document_place_heading_and_page() -> None:
    section = Section(numbered(0, 12), ("A", "B"), page=3)
    assert cut(section)[1] == Chunk("doc", 1, numbered(8, 12), "A > B", 3)


def test_what_is_embedded_begins_with_the_heading() -> None:
    assert Chunk("doc", 0, "text", "A > B").passage == "A > B\ntext"
    assert Chunk("doc", 0, "text").passage == "text"


def test_chunks_do_not_cross_sections() -> None:
    texts = [chunk.text for chunk in cut(Section(numbered(0, 5)), Section(numbered(5, 10)))]
    assert texts == [numbered(0, 5), numbered(5, 10)]


def test_small_sections_join_under_the_headings_they_share() -> None:
    joined = cut(Section("one", ("A", "B"), page=1), Section("two", ("A", "C"), page=2))
    assert joined == [Chunk("doc", 0, "B\none\n\nC\ntwo", "A", 1)]


def test_small_sections_that_do_not_fit_together_stay_apart() -> None:
    assert len(cut(Section("one"), Section(numbered(0, 10)))) == 2


def test_line_breaks_and_indentation_survive() -> None:
    assert cut(Section("def f():\n    return 1"))[0].text == "def f():\n    return 1"


def test_text_without_spaces_is_cut_too() -> None:
    texts = [chunk.text for chunk in cut(Section("字" * 600), overlap_words=0)]
    assert [len(text) for text in texts] == [240, 240, 120]


def test_a_chunk_never_outgrows_the_stores_text_field() -> None:
    spaced = " " * 100
    texts = [chunk.text for chunk in cut(Section(spaced.join("字" * 24 for _ in range(900))), max_words=2000)]
    assert max(len(text.encode()) for text in texts) <= MAX_CHUNK_BYTES
    assert sum(text.count("字") for text in texts) >= 900 * 24


def test_one_gap_longer_than_the_text_field_loses_nothing_but_space() -> None:
    assert [chunk.text for chunk in cut(Section("a" + " " * MAX_CHUNK_BYTES + "b"), overlap_words=0)] == ["a", "b"]


@pytest.mark.parametrize(("limit", "kept"), [(2, "one two"), (3, "one two\nthree"), (9, "one two\nthree")])
def test_the_first_words_of_a_text(limit: int, kept: str) -> None:
    assert first_words("one two\nthree", limit) == kept


def test_a_long_run_counts_as_several_words() -> None:
    assert count_words("x" * 48 + " y") == 3
