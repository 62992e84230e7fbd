"""The messages put before the model: instruction, conversation so far, sources, question.

Kept compact: a small model has a window of 2,048 tokens and loses the thread in a long prompt, so the sources stand
right before the question and nothing is said twice.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serve_apps.common import fence
from serve_apps.rag import links
from serve_apps.rag.chunking import count_words
from serve_apps.rag.conversation import Conversation, Message
from serve_apps.rag.retriever import Retrieval, Source

#: Begins an answer that has no sources, whatever the model then says: a small one cannot be relied on to say so.
NOTHING_FOUND = "The documents hold nothing on this question, so this answer does not come from them.\n\n"
FOUND_IN_PART = (
    "Only a part of the search worked, and it found nothing on this question, so this answer does not come from the "
    "documents.\n\n"
)
NOT_SEARCHED = "The documents could not be searched, so this answer does not come from them.\n\n"

_NO_SOURCES = "There are no sources for this question: say so, and do not guess what the documents might hold."


def messages(
    system_prompt: str, conversation: Conversation, retrieval: Retrieval, max_history_words: int
) -> list[Mapping[str, Any]]:
    """The whole prompt, in the roles of a chat completion."""
    instruction = "\n\n".join(filter(None, [system_prompt, conversation.instruction]))
    sources = "\n".join(map(_fenced, retrieval.sources)) or _NO_SOURCES
    text = f"{sources}\n\nQuestion: {conversation.question}"
    shown = [*map(_image, conversation.images), *(part for each in retrieval.sources for part in _figures(each))]
    question = {"role": "user", "content": [_text(text), *shown] if shown else text}
    system: list[Message] = [{"role": "system", "content": instruction}] if instruction else []
    return [*system, *recent(conversation.history, max_history_words), question]


def notice(retrieval: Retrieval) -> str:
    """What an answer must begin with; empty if it has sources."""
    if retrieval.sources:
        return ""
    if not retrieval.searched:
        return NOT_SEARCHED
    return FOUND_IN_PART if retrieval.in_part else NOTHING_FOUND


def addresses(system_prompt: str, conversation: Conversation, retrieval: Retrieval) -> frozenset[str]:
    """The addresses that stand in what the model is told: its answer may have these.

    What the assistant said does not count: a document may have led it before.
    """
    said = [message["content"] for message in conversation.history if message["role"] == "user"]
    sources = [text for source in retrieval.sources for text in (source.chunk.document, source.chunk.passage)]
    return links.addresses([system_prompt, conversation.instruction, conversation.question, *said, *sources])


def recent(history: Sequence[Message], max_words: int) -> list[Message]:
    """The latest whole messages within ``max_words``, beginning with the user's, as chat templates demand."""
    kept: list[Message] = []
    room = max_words
    for message in reversed(history):
        room -= count_words(message["content"])
        if room < 0:
            break
        kept.insert(0, message)
    while kept and kept[0]["role"] != "user":
        kept.pop(0)
    return kept


def _figures(source: Source) -> Iterator[dict[str, Any]]:
    for figure in source.figures:
        yield _text(f"Figure of source [{source.index}], page {figure.page}:")
        yield _image(figure.url)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def _fenced(source: Source) -> str:
    """A source as data: numbered and named."""
    named = f' id="{source.index}"' + _attribute("document", source.chunk.document)
    if source.chunk.heading:
        named += _attribute("heading", source.chunk.heading)
    return fence.fenced("source", named, source.chunk.text)


def _attribute(name: str, value: str) -> str:
    plain = re.sub(r"[<>\s]+", " ", fence.inert(value)).replace('"', "'")
    return f' {name}="{plain}"'
