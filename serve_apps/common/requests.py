"""What requests to our Starlette applications carry."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request

from serve_apps.common.errors import InvalidRequest

#: The fields of a chat completion for the length of its answer; the second is OpenAI's newer name.
_LENGTHS = ("max_tokens", "max_completion_tokens")


async def json_object(request: Request) -> dict[str, Any]:
    """The request's body, a JSON object; the gateway has seen to its size.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object", code="invalid_json")
    return body


def answer_bounds(body: Mapping[str, Any], most: int) -> dict[str, int]:
    """The fields of a chat completion that bound its answer, in tokens, none above ``most``; none if it has none.

    Raises:
        InvalidRequest: one is no bound.
    """
    bounds: dict[str, int] = {}
    for name in _LENGTHS:
        if (asked := body.get(name)) is not None:
            if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
                raise InvalidRequest(f"{name}: must be a whole number from 1, got {asked!r}", param=name)
            bounds[name] = min(asked, most)
    return bounds
