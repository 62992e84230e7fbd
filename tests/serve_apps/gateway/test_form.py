import asyncio
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from serve_apps.common.errors import InvalidRequest
from serve_apps.gateway.form import MAX_PARTS, read_fields

AUDIO = bytes(range(256)) * 400


def encoded(files: Any, data: dict[str, Any] | None = None) -> tuple[str, bytes]:
    """A form as a client sends it: its content type and body."""
    request = httpx.Request("POST", "http://host/", files=files, data=data)
    return request.headers["content-type"], request.read()


def form(*parts: bytes) -> tuple[str, bytes]:
    """A form of parts as they stand."""
    return "multipart/form-data; boundary=x", b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + b"--x--\r\n"


def part(name: str, value: bytes) -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value


def upstreams_view(content_type: str, body: bytes) -> dict[str, Any]:
    """The fields as vLLM's own server (FastAPI on Starlette) reads them."""

    async def read() -> dict[str, Any]:
        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type.encode())]}
        async with Request(scope, receive).form() as fields:
            return {name: value for name, value in fields.items() if isinstance(value, str)}

    return asyncio.run(read())


@pytest.mark.parametrize(
    "sent",
    [
        encoded({"file": ("a.wav", AUDIO, "audio/wav")}, {"model": "whisper", "language": "de"}),
        encoded({"file": ("a.wav", b"--x\r\n\r\n--", "audio/wav")}, {"prompt": "one\r\n--two\r\n", "model": "whisper"}),
        encoded({"file": ("model", AUDIO), "model": (None, "whisper")}),
        form(part("model", b"first"), part("model", b"whisper")),
        form(part("model", b"whisper"), b'Content-Disposition: form-data; name="model"; filename="x"\r\n\r\nother'),
        form(b"content-disposition:form-data;name=model\r\ncontent-type: text/plain\r\n\r\nwhisper"),
        form(part("model", "wïsper".encode())),
        form(part("model", b"")),
        form(part("MODEL", b"whisper")),
    ],
    ids=["usual", "like-a-boundary", "file-named-model", "twice", "file-last", "unquoted", "utf8", "empty", "case"],
)
def test_fields_are_read_as_the_upstream_reads_them(sent: tuple[str, bytes]) -> None:
    theirs = upstreams_view(*sent)
    ours = {name: field.value for name, field in read_fields(*sent).items()}
    assert {name: ours[name] for name in theirs} == theirs


def test_a_value_is_known_by_its_place() -> None:
    content_type, body = encoded({"file": ("a.wav", AUDIO)}, {"model": "whisper"})
    place = read_fields(content_type, body)["model"].place
    assert place is not None
    assert body[slice(*place)] == b"whisper"


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (("multipart/form-data; boundary=x", b"--y\r\n"), "its parts are not what its boundary says"),
        (("multipart/form-data; boundary=x", b"--x\r\nno header\r\n\r\n"), "its parts are not what its boundary says"),
        (("multipart/form-data; boundary=" + "x" * 300, b""), "its parts are not what its boundary says"),
        (form(b"content-type: text/plain\r\n\r\n1"), "a part of it has no name"),
        (form(part("model", b"\xff")), 'its field "model" is not UTF-8'),
        (form(*[part("a", b"1")] * (MAX_PARTS + 1)), f"it has more than {MAX_PARTS} parts"),
    ],
)
def test_a_body_that_is_no_form_is_refused(sent: tuple[str, bytes], problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_fields(*sent)
    assert caught.value.message == f"The request body is not a form that can be read: {problem}."
    assert caught.value.code == "invalid_form"


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=x"])
def test_a_body_of_another_type_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequest, match="This path takes a form: send multipart/form-data"):
        read_fields(content_type, b"{}")
