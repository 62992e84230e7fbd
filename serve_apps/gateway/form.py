"""The fields of a form (``multipart/form-data``) in memory; files are passed over."""

from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serve_apps.common.errors import InvalidRequest

#: A form of ours has a dozen fields; each more costs time.
MAX_PARTS = 100


@dataclass(frozen=True, slots=True)
class Field:
    """A field that is not a file."""

    value: str
    place: tuple[int, int] | None
    """Where it begins and ends in the body; None if it is empty."""


class _Reading:
    """The parser's callbacks. It is given the body whole, so a part's data is one stretch of the body."""

    def __init__(self) -> None:
        self.fields: dict[str, Field] = {}
        self._parts = 0
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._name = ""
        self._is_file = False
        self._content = b""
        self._place: tuple[int, int] | None = None

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _wrong(f"it has more than {MAX_PARTS} parts")
        self._disposition = b""
        self._content = b""
        self._place = None

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise _wrong("a part of it has no name")
        self._name = options[b"name"].decode("utf-8", "replace")
        self._is_file = b"filename" in options

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            self._content = data[start:end]
            self._place = (start, end)

    def on_part_end(self) -> None:
        if not self._is_file:
            try:
                value = self._content.decode()
            except UnicodeDecodeError:
                raise _wrong(f'its field "{self._name}" is not UTF-8') from None
            self.fields[self._name] = Field(value, self._place)


def read_fields(content_type: str, body: bytes) -> dict[str, Field]:
    """The fields of ``body``; of two with one name the last, as vLLM's own server reads them.

    Raises:
        InvalidRequest: it is no form.
    """
    media_type, options = parse_options_header(content_type)
    if media_type != b"multipart/form-data" or b"boundary" not in options:
        raise InvalidRequest(
            f"This path takes a form: send multipart/form-data, not {content_type[:80] or 'a body without a type'}.",
            code="unsupported_media_type",
        )
    reading = _Reading()
    try:
        parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": reading.on_part_begin,
                "on_part_data": reading.on_part_data,
                "on_part_end": reading.on_part_end,
                "on_header_field": reading.on_header_field,
                "on_header_value": reading.on_header_value,
                "on_header_end": reading.on_header_end,
                "on_headers_finished": reading.on_headers_finished,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise _wrong("its parts are not what its boundary says") from None
    return reading.fields


def _wrong(problem: str) -> InvalidRequest:
    return InvalidRequest(f"The request body is not a form that can be read: {problem}.", code="invalid_form")
