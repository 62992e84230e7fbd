"""A follow-up question, made to stand alone: "and in winter?" cannot be searched for."""

from collections.abc import Sequence
from typing import Any

from serve_apps.rag.conversation import Message

#: Messages before the question that its rewriting sees, and characters of each.
HISTORY = 4
MESSAGE_CHARS = 500

#: Tokens of a rewritten question at most.
MAX_TOKENS = 64

_INSTRUCTION = (
    "Rewrite the user's last question so that it can be understood without the conversation: put names in place of "
    "words such as it, they, there. Keep its language. If it stands alone already, repeat it. Do not answer it. Write "
    "the question only."
)


def request(llm: str, history: Sequence[Message], question: str) -> dict[str, Any]:
    """What to ask the model."""
    said = "\n".join(f"{each['role']}: {each['content'][:MESSAGE_CHARS]}" for each in history[-HISTORY:])
    return {
        "model": llm,
        "messages": [
            {"role": "system", "content": _INSTRUCTION},
            {"role": "user", "content": f"{said}\n\nLast question: {question}"},
        ],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
    }


def read(completion: dict[str, Any], question: str) -> str:
    """The question to search for: the model's, beside the user's own words, which it must not lose.

    Raises:
        ValueError: the model gave none.
    """
    try:
        rewritten = str(completion["choices"][0]["message"]["content"]).strip().split("\n")[0].strip()
    except (LookupError, TypeError) as error:
        raise ValueError("no rewritten question") from error
    if not rewritten:
        raise ValueError("no rewritten question")
    return rewritten if question.lower() in rewritten.lower() else f"{rewritten} {question}"
