"""A chat completion request to an agent: the conversation, and what may be said about the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serve_apps.agent.config import Agent
from serve_apps.common.errors import InvalidRequest
from serve_apps.common.requests import answer_bounds

#: Fields that are the model's business, passed on as they are.
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty", "user")
#: What an agent cannot do, and why.
_REFUSED = {
    "tools": "an agent's tools are those of its values",
    "functions": "an agent's tools are those of its values",
    "tool_choice": "an agent chooses its tools itself",
    "response_format": "an agent answers in plain text",
    "logprobs": "an agent's answer is made of several calls",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What an agent is asked."""

    messages: list[dict[str, Any]]
    """What users and assistant said, oldest first; the last is the user's."""
    instruction: str = ""
    """The client's own system messages; they follow the agent's."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Fields for the model that answers."""
    stream: bool = False
    include_usage: bool = False
    """Whether a stream ends with the usage."""
    include_steps: bool = False
    """Whether the answer shows the calls of tools."""


def read(body: Mapping[str, Any], agent: Agent) -> Asked:
    """The request in a body.

    Raises:
        InvalidRequest: it is none, or asks for what an agent cannot do; says where.
    """
    for name, why in _REFUSED.items():
        if body.get(name):
            raise InvalidRequest(f"{name}: {why}; leave it out", param=name)
    if body.get("n") not in (None, 1):
        raise InvalidRequest(f"n: an agent gives one answer, got {body['n']!r}; leave it out", param="n")
    for name in ("stream", "include_steps"):
        if not isinstance(body.get(name) or False, bool):
            raise InvalidRequest(f"{name}: must be true or false, got {body[name]!r}", param=name)
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise InvalidRequest("messages: required, a list that ends with a user's message", param="messages")
    messages = [_message(number, message) for number, message in enumerate(given)]
    if messages[-1]["role"] != "user" or not messages[-1]["content"]:
        raise InvalidRequest("messages: the last must be a user's, and hold the question", param="messages")
    instruction = "\n\n".join(each["content"] for each in messages if each["role"] in ("system", "developer"))
    options = body.get("stream_options")
    return Asked(
        messages=[each for each in messages if each["role"] in ("user", "assistant") and each["content"]],
        instruction=instruction,
        sampling=_sampling(body, agent),
        stream=bool(body.get("stream")),
        include_usage=isinstance(options, dict) and bool(options.get("include_usage")),
        include_steps=bool(body.get("include_steps")),
    )


def _sampling(body: Mapping[str, Any], agent: Agent) -> dict[str, Any]:
    sampling = {name: body[name] for name in _SAMPLING if body.get(name) is not None}
    if bounds := answer_bounds(body, agent.max_tokens):
        sampling["max_tokens"] = min(bounds.values())
    return sampling


def _message(number: int, message: Any) -> dict[str, Any]:
    path = f"messages[{number}]"
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ("user", "assistant", "system", "developer"):
        raise InvalidRequest(
            f"{path}: must have content and a role of user, assistant, system, developer; got {role!r}",
            param=path,
        )
    content = message.get("content")
    if content is None or isinstance(content, str):
        return {"role": role, "content": content or ""}
    # The parts of a user's message are the model's business (an image for one that sees).
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise InvalidRequest(f"{path}.content: must be a text or a list of parts", param=f"{path}.content")
    if role == "user":
        return {"role": role, "content": content}
    if any(part.get("type") != "text" or not isinstance(part.get("text"), str) for part in content):
        raise InvalidRequest(
            f"{path}.content: only a user's message has parts other than text", param=f"{path}.content"
        )
    return {"role": role, "content": "\n".join(part["text"] for part in content)}
