"""What requests to our Starlette applications carry."""

from typing import Any

import orjson
from starlette.requests import Request

from serve_apps.common.errors import InvalidRequest


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
