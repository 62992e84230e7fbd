from typing import Any

import pytest

from serve_apps.rag.conversation import Message
from serve_apps.rag.rewriting import HISTORY, MESSAGE_CHARS, read, request

HISTORY_OF_MANY: list[Message] = [{"role": "user", "content": f"{number} " + "x" * 9999} for number in range(9)]


def completion(content: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}}]}


def test_the_model_sees_the_latest_messages_cut_short() -> None:
    asked = request("chat", HISTORY_OF_MANY, "and in winter?")
    content = asked["messages"][-1]["content"]
    assert content.endswith("Last question: and in winter?")
    assert content.startswith(f"user: {9 - HISTORY} ")
    assert len(content) < HISTORY * (MESSAGE_CHARS + 20) + 50
    assert (asked["model"], asked["temperature"]) == ("chat", 0)
    assert asked["max_tokens"] < 100


def test_the_questions_own_words_are_not_lost() -> None:
    assert read(completion(" When does it open in winter?\nBecause"), "in winter?") == "When does it open in winter?"
    assert read(completion("Museum hours"), "and in winter?") == "Museum hours and in winter?"


@pytest.mark.parametrize("broken", [{}, {"choices": []}, completion(""), completion(" \n"), {"choices": None}])
def test_no_question_is_an_error(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no rewritten question"):
        read(broken, "and in winter?")
