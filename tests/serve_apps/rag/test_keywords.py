import pytest

from serve_apps.rag.config import Language
from serve_apps.rag.keywords import KeywordIndex


def index(*texts: str, language: Language = "english") -> KeywordIndex:
    made = KeywordIndex(language)
    for row, text in enumerate(texts):
        made.add(row, row // 2, text, [])
    return made


def found(keywords: KeywordIndex, text: str) -> list[int]:
    return [row for row, _ in keywords.search(text, 10, None)]


def test_the_rarest_word_and_the_shortest_text_come_first() -> None:
    keywords = index("the red house", "the red and the blue house", "the house", "the garden")
    assert found(keywords, "red house") == [0, 1, 2]


def test_a_words_endings_case_and_accents_do_not_matter() -> None:
    assert found(index("the Wings of a café"), "wing") == [0]
    assert found(index("the Wings of a café"), "CAFE") == [0]
    assert found(index("the wings"), "win") == []


def test_another_language_has_other_endings() -> None:
    assert found(index("Die Zeitungen der Stadt", language="german"), "Zeitung") == [0]
    assert found(index("Die Zeitungen der Stadt"), "Zeitung") == []
    assert found(index("the wings", language="none"), "wing") == []


@pytest.mark.parametrize(("text", "asked"), [("大家好世界和平", "世界"), ("ระบบค้นหาเอกสาร", "ค้นหา")])
def test_scripts_without_spaces_are_found_by_their_characters(text: str, asked: str) -> None:
    assert found(index("something else", text), asked) == [1]


def test_the_query_has_no_language_of_its_own() -> None:
    keywords = index("alpha", "beta", "gamma")
    assert found(keywords, "-alpha +beta text:gamma* (") == [0, 1, 2]
    assert found(keywords, 'row:1 "') == []


def test_a_documents_chunks_go_together() -> None:
    keywords = index("one a", "one b", "one c")
    assert sorted(found(keywords, "one")) == [0, 1, 2]
    keywords.remove(0)
    keywords.add(7, 9, "one d", [])
    assert sorted(found(keywords, "one")) == [2, 7]


def test_a_long_question_is_looked_up_by_its_first_words() -> None:
    question = " ".join(f"word{number}" for number in range(5000))
    assert found(index("word1", "word4999"), question) == [0]
