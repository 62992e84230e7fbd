"""A chat completion request, read as a conversation that ends in a question."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from serve_apps.common.errors import InvalidRequest
from serve_apps.rag.config import Pipeline

#: The request's own fields for the length of an answer; the second is OpenAI's newer name.
_LENGTHS = ("max_tokens", "max_completion_tokens")

#: The request's fields that are the pipeline's and unknown to models.
OWN_FIELDS = frozenset({"filter"})


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


def read(body: Mapping[str, Any]) -> Conversation:
    """The conversation in the body of a chat completion request.

    Raises:
        InvalidRequest: no messages, the last is not the user's, or one holds something other than text.
    """
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
    return Conversation(last["content"].strip(), tuple(spoken), instruction)


def request_for(pipeline: Pipeline, body: Mapping[str, Any], messages: list[Message]) -> dict[str, Any]:
    """The request to the pipeline's model: the client's own, with the pipeline's prompt, bounds and defaults."""
    asked_for = {name: value for name, value in body.items() if name not in OWN_FIELDS}
    request = {"temperature": pipeline.temperature, **asked_for, "model": pipeline.llm, "messages": messages}
    asked = [name for name in _LENGTHS if request.get(name) is not None]
    for name in asked:
        if not isinstance(request[name], int) or request[name] < 1:
            raise InvalidRequest(f"{name}: must be a whole number from 1, got {request[name]!r}", param=name)
        request[name] = min(request[name], pipeline.max_tokens)
    if not asked:
        request["max_tokens"] = pipeline.max_tokens
    return request


def _message(number: int, message: Any) -> Message:
    path = f"messages[{number}]"
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise InvalidRequest(f"{path}: must be an object with role and content", param=path)
    return {"role": message["role"], "content": _text(path, message.get("content"))}


def _text(path: str, content: Any) -> str:
    """Content as text: a string, nothing (an assistant's tool call), or a list of text parts."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise InvalidRequest(f"{path}.content: a pipeline takes text only, got {kind!r}", param=f"{path}.content")
    return "\n".join(part["text"] for part in parts)
