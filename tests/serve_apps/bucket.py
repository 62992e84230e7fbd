"""A bucket of S3's protocol, as far as its clients need one in tests."""

import xml.sax.saxutils
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from serve_apps.common.middleware import Receive, Scope, Send


class Bucket:
    """What a client of S3 needs to list the bucket ``bucket`` and read ``objects`` from it."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self.objects = objects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        await self._respond(request)(scope, receive, send)

    def _respond(self, request: Request) -> Response:
        key = request.url.path.removeprefix("/bucket").removeprefix("/")
        if "list-type" in request.query_params:
            prefix = request.query_params.get("prefix", "")
            found = {name: content for name, content in self.objects.items() if name.startswith(prefix)}
            entries = "".join(
                f"<Contents><Key>{xml.sax.saxutils.escape(name)}</Key><Size>{len(content)}</Size>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for name, content in found.items()
            )
            told = f"<KeyCount>{len(found)}</KeyCount><IsTruncated>false</IsTruncated>{entries}"
            return Response(f"<ListBucketResult>{told}</ListBucketResult>", media_type="application/xml")
        if key not in self.objects:
            return Response(status_code=404)
        content = self.objects[key]
        headers = {"content-length": str(len(content)), "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if request.method == "HEAD":
            return Response(headers=headers)
        if "range" not in request.headers:
            return Response(content)
        first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
        return Response(content[int(first) : int(last) + 1 if last else None], 206)
