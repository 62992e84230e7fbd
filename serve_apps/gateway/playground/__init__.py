"""The playground: a page at ``/`` to try models, pipelines and agents with, over the API that everybody has.

It is files of this package, sent as they are. They hold nothing secret, so anybody may load them; whatever they ask for
takes a key. The page may reach this gateway and nothing else, and has no way to turn text into markup: its policy sees
to both, whatever a model writes.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources

from serve_apps.common.errors import MethodNotAllowed
from serve_apps.gateway.headers import RawHeaders

_TYPES = {"html": b"text/html", "css": b"text/css", "js": b"text/javascript"}
#: The files by path; scripts and styles have one of their own each, so that the policy need allow none in the page.
_FILES = {
    "/": "index.html",
    "/playground/page.css": "page.css",
    "/playground/answer.js": "answer.js",
    "/playground/api.js": "api.js",
    "/playground/page.js": "page.js",
    "/playground/text.js": "text.js",
}
PATHS = frozenset(_FILES)

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "connect-src 'self'",
        "img-src data:",
        "script-src 'self'",
        "style-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS: RawHeaders = [
    (b"cache-control", b"no-cache"),
    (b"content-security-policy", _POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


@dataclass(frozen=True, slots=True)
class File:
    """A file of the page, as it is sent."""

    headers: RawHeaders
    body: bytes


def file(method: str, path: str) -> File:
    """The file at ``path``, one of ``PATHS``.

    Raises:
        MethodNotAllowed: it is not being read.
    """
    if method not in ("GET", "HEAD"):
        raise MethodNotAllowed(f"{path} answers GET, HEAD, not {method}", allow=("GET", "HEAD"))
    return _read(path)


@cache
def _read(path: str) -> File:
    name = _FILES[path]
    body = resources.files(__name__).joinpath(name).read_bytes()
    kind = _TYPES[name.rpartition(".")[2]]
    return File(
        [(b"content-type", kind + b"; charset=utf-8"), (b"content-length", b"%d" % len(body)), *_HEADERS],
        body,
    )
