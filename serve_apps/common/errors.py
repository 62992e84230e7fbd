"""Errors that reach a client, in OpenAI's shape.

ServingError
├── InvalidRequest          the request itself is wrong; sending it again will not help
├── Unauthenticated         no credential, or one that does not match
├── PermissionDenied        a valid credential that may not do this
├── NotFound                no such model, pipeline or path
├── MethodNotAllowed        the path exists, the method does not
├── RequestTimeout          the request did not come in in time
├── TooLarge                over a stated size limit
├── HeadersTooLarge         the headers are
├── UnsupportedMediaType    a document type this server cannot read
├── Unprocessable           what the request names is there and cannot be used
├── RateLimited             refused now; carries Retry-After
├── UpstreamFailed          a model or store behind us broke
├── Unavailable             a model or store behind us is not there (yet); carries Retry-After
└── UpstreamTimeout         a model behind us did not begin to answer in time
"""

import json
from collections.abc import Sequence
from typing import Any, ClassVar


class ServingError(Exception):
    """Base: an HTTP status, OpenAI's ``type`` and ``code``, and a sentence that says what would be right."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The response body: ``{"error": {message, type, param, code}}``.

        Shape: https://platform.openai.com/docs/api-reference/errors
        """
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def encoded(self) -> bytes:
        """The body as JSON bytes."""
        return json.dumps(self.body()).encode()

    def headers(self) -> dict[str, str]:
        """The headers that belong to this error: ``content-type`` and, where there is one, ``retry-after``."""
        headers = {"content-type": "application/json"}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(self.retry_after_s)
        return headers


class InvalidRequest(ServingError):
    """The request itself is wrong; sending it again will not help."""

    status = 400
    type = "invalid_request_error"


class Unauthenticated(ServingError):
    """No credential, or one that does not match."""

    status = 401
    type = "authentication_error"


class PermissionDenied(ServingError):
    """A valid credential that may not do this."""

    status = 403
    type = "permission_error"


class NotFound(ServingError):
    """No such model, pipeline or path."""

    status = 404
    type = "invalid_request_error"


class MethodNotAllowed(ServingError):
    """The path exists, the method does not; carries Allow."""

    status = 405
    type = "invalid_request_error"

    def __init__(self, message: str, *, allow: Sequence[str]) -> None:
        super().__init__(message, code="method_not_allowed")
        self.allow = allow

    def headers(self) -> dict[str, str]:
        """As for every error, and the methods the path does answer."""
        return super().headers() | {"allow": ", ".join(self.allow)}


class TooLarge(ServingError):
    """Over a stated size limit."""

    status = 413
    type = "invalid_request_error"


class RequestTimeout(ServingError):
    """The client took too long to send its request."""

    status = 408
    type = "invalid_request_error"


class HeadersTooLarge(ServingError):
    """The request's headers are over the size limit."""

    status = 431
    type = "invalid_request_error"


class UnsupportedMediaType(ServingError):
    """A document type this server cannot read."""

    status = 415
    type = "invalid_request_error"


class Unprocessable(ServingError):
    """What the request names is there and cannot be used."""

    status = 422
    type = "invalid_request_error"


class RateLimited(ServingError):
    """Refused now; carries Retry-After."""

    status = 429
    type = "rate_limit_error"


class UpstreamFailed(ServingError):
    """A model or store behind us broke."""

    status = 502


class Unavailable(ServingError):
    """A model or store behind us is not there (yet); carries Retry-After."""

    status = 503


class UpstreamTimeout(ServingError):
    """A model behind us did not begin to answer in time."""

    status = 504
