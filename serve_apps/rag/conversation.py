"""A chat completion request, read as a conversation that ends in a question."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from serve_apps.common.errors import InvalidRequest
from serve_apps.common.requests import answer_bounds
from serve_apps.rag import images
from serve_apps.rag.config import Pipeline

#: The request's fields that are the pipeline's and unknown to models.
OWN_FIELDS = frozenset({"filter"})
#: What documents could have the model call, with words of the conversation; and no results of such calls are read.
_CALLS = ("tools", "functions")


class Message(TypedDict):
    """A message of a chat completion, its content as plain text."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said."""

    question: str
    """The last message, the user's."""
    history: tuple[Message, ...] = ()
    """What users and assistant said before it, oldest first."""
    instruction: str = ""
    """The client's own system messages; they follow the pipeline's."""
    images: tuple[str, ...] = ()
    """The images of the question, as data URLs; those of earlier messages are left out."""


def read(body: Mapping[str, Any]) -> Conversation:
    """The conversation in the body of a chat completion request.

    Raises:
        InvalidRequest: no messages, the last is not the user's, or one holds something other than text; or tools.
    """
    for name in _CALLS:
        if body.get(name):
            raise InvalidRequest(
                f"{name}: a pipeline answers and calls nothing; leave it out, or ask an agent", param=name
            )
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise InvalidRequest("messages: required, a list that ends with a user's message", param="messages")
    read_messages = [_message(number, message) for number, message in enumerate(given)]
    last = read_messages[-1]
    if last["role"] != "user" or not last["content"].strip():
        raise InvalidRequest("messages: the last must be a user's, and hold the question", param="messages")
    spoken = [message for message in read_messages[:-1] if message["role"] in ("user", "assistant")]
    instruction = "\n\n".join(
        message["content"] for message in read_messages if message["role"] in ("system", "developer")
    )
    shown = tuple(_images(f"messages[{len(given) - 1}]", given[-1].get("content")))
    return Conversation(last["content"].strip(), tuple(spoken), instruction, shown)


def model_for(pipeline: Pipeline, said: Conversation) -> str:
    """The model that answers.

    Raises:
        InvalidRequest: the question has images, and the pipeline no model that sees.
    """
    if not said.images:
        return pipeline.llm
    if pipeline.vision is None:
        raise InvalidRequest(
            "messages: the question has images, and this pipeline has no model that sees them; ask in words",
            param="messages",
            code="images_not_supported",
        )
    return pipeline.vision


def request_for(
    pipeline: Pipeline, model: str, body: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The request to ``model``: the client's own, with the pipeline's prompt, bounds and defaults."""
    asked_for = {name: value for name, value in body.items() if name not in OWN_FIELDS}
    bounds = answer_bounds(body, pipeline.max_tokens) or {"max_tokens": pipeline.max_tokens}
    return {"temperature": pipeline.temperature, **asked_for, **bounds, "model": model, "messages": messages}


def _message(number: int, message: Any) -> Message:
    path = f"messages[{number}]"
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise InvalidRequest(f"{path}: must be an object with role and content", param=path)
    return {"role": message["role"], "content": _text(path, message.get("content"))}


def _text(path: str, content: Any) -> str:
    """Content as text: a string, nothing (an assistant's tool call), or the text of a list of parts."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind != "image_url":
            raise InvalidRequest(
                f"{path}.content: a pipeline takes text and images only, got {kind!r}", param=f"{path}.content"
            )
    return "\n".join(texts)


def _images(path: str, content: Any) -> Iterator[str]:
    parts = [part for part in content if part["type"] == "image_url"] if isinstance(content, list) else []
    if len(parts) > images.MAX_IMAGES:
        raise InvalidRequest(
            f"{path}.content: {len(parts)} images; send {images.MAX_IMAGES} or fewer", param=f"{path}.content"
        )
    for part in parts:
        yield images.url_of(path, part)
