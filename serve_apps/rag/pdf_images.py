"""The images on a page of a PDF, as files that models read, without a library for images.

A JPEG stands in a PDF as it is, and the rows of most other images are those of a PNG. What neither is true of is left
out: JPEG 2000, fax, CMYK; and so is what a page draws in lines. ``pdf_pages`` has pictures of those.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pypdf import PageObject
from pypdf.filters import decode_stream_data
from pypdf.generic import BooleanObject, StreamObject

#: What draws an image, or a form, which draws again: ``/Im1 Do``.
_DRAWN = re.compile(rb"/([^\s/<>\[\](){}%]+)\s+Do\b")

#: PNG's colour types; the last is added where pixels have an opacity.
_GREY, _RGB, _PALETTE, _ALPHA = 0, 2, 3, 4
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY + _ALPHA: 2, _RGB + _ALPHA: 4}
#: The bits of a channel that PNG knows, by colour type.
_BITS = {_GREY: (1, 2, 4, 8, 16), _RGB: (8, 16), _PALETTE: (1, 2, 4, 8)}

_SPACES = {"/DeviceGray": _GREY, "/CalGray": _GREY, "/DeviceRGB": _RGB, "/CalRGB": _RGB}
_JPEG = "/DCTDecode"
#: Filters whose result is no rows of pixels.
_UNREAD = frozenset({"/JPXDecode", "/CCITTFaxDecode", "/JBIG2Decode"})


@dataclass(frozen=True, slots=True)
class Image:
    """An image as a file."""

    media_type: str
    content: bytes


def drawn(page: PageObject) -> Iterator[StreamObject]:
    """The images that a page draws, in that order, each once. Its resources alone may list those of all pages."""
    contents = page.get_contents()
    if contents is not None:
        yield from _drawn(contents.get_data(), _entry(page, "/Resources"), set())


def size(image: StreamObject) -> tuple[int, int]:
    """Its width and height, in pixels."""
    return int(_entry(image, "/Width")), int(_entry(image, "/Height"))


def encoded(image: StreamObject, max_pixels: int) -> Image | None:
    """An image as a file; None for a larger one, and for a kind that is not read."""
    filters = _filters(image)
    is_stencil = _entry(image, "/ImageMask") == BooleanObject(True)
    colours = None if is_stencil else _colours(_entry(image, "/ColorSpace"))
    (width, height), decode = size(image), _entry(image, "/Decode")
    is_negative = bool(decode) and decode[0] > decode[1]
    if colours is None or is_negative or _UNREAD & set(filters) or width * height > max_pixels:
        return None
    if _JPEG in filters:
        return Image("image/jpeg", _unpacked(image))
    kind, palette = colours
    bits = _entry(image, "/BitsPerComponent")
    if bits not in _BITS[kind]:
        return None
    rows = _unpacked(image)
    opacity = _opacity(image, width, height) if bits == 8 and kind != _PALETTE else None
    if opacity is not None:
        kind, rows = kind + _ALPHA, _woven(rows, _CHANNELS[kind], opacity)
    stride = -(-width * _CHANNELS[kind] * bits // 8)
    if len(rows) < stride * height:
        return None
    return _png((width, height, bits, kind), palette[: 3 * 2**bits], rows, stride)


def paletted(width: int, height: int, palette: bytes, rows: bytes) -> Image:
    """A PNG of pixels that are each a byte: the number of a colour in ``palette``, which has three bytes for each."""
    return _png((width, height, 8, _PALETTE), palette, rows, width)


def _drawn(drawing: bytes, resources: Any, seen: set[int]) -> Iterator[StreamObject]:
    drawable = _entry(resources or {}, "/XObject") or {}
    for name in dict.fromkeys(_DRAWN.findall(drawing)):
        found = _entry(drawable, f"/{name.decode('latin-1')}")
        if not isinstance(found, StreamObject) or id(found) in seen:
            continue
        seen.add(id(found))
        kind = _entry(found, "/Subtype")
        if kind == "/Image":
            yield found
        elif kind == "/Form":
            yield from _drawn(found.get_data(), _entry(found, "/Resources") or resources, seen)


def _entry(of: Any, name: str) -> Any:
    """An entry, or what it refers to; None if there is none."""
    found = of.get(name)
    return None if found is None else found.get_object()


def _unpacked(image: StreamObject) -> bytes:
    """Its data without all filters that are not an image's own; pypdf's objects would keep it."""
    return decode_stream_data(image) if "/Filter" in image else image.get_data()


def _filters(image: StreamObject) -> list[str]:
    given = _entry(image, "/Filter")
    return list(given) if isinstance(given, list) else [given]


def _colours(space: Any) -> tuple[int, bytes] | None:
    """A colour space as PNG's colour type and palette."""
    if space is None:
        return None
    space = space.get_object()
    if not isinstance(space, list):
        return (_SPACES[space], b"") if space in _SPACES else None
    name = space[0]
    if name == "/ICCBased":
        kind = {1: _GREY, 3: _RGB}.get(space[1].get_object()["/N"])
        return None if kind is None else (kind, b"")
    if name == "/Indexed":
        base = _colours(space[1])
        if base is None or base[0] == _PALETTE:
            return None
        given = space[3].get_object()
        colours = given.get_data() if isinstance(given, StreamObject) else given.original_bytes
        palette = colours if base[0] == _RGB else bytes(grey for grey in colours for _ in range(3))
        return _PALETTE, palette.ljust(3 * 256, b"\0")
    return (_SPACES[name], b"") if name in _SPACES else None


def _opacity(image: StreamObject, width: int, height: int) -> bytes | None:
    """A byte for each pixel, where the image has them."""
    mask = _entry(image, "/SMask")
    if not isinstance(mask, StreamObject) or {_JPEG, *_UNREAD} & set(_filters(mask)):
        return None
    if size(mask) != (width, height) or _entry(mask, "/BitsPerComponent") != 8:
        return None
    opacity = _unpacked(mask)[: width * height]
    return opacity if len(opacity) == width * height else None


def _woven(rows: bytes, channels: int, opacity: bytes) -> bytes:
    """The pixels, each followed by its opacity."""
    woven = bytearray(len(opacity) * (channels + 1))
    for channel in range(channels):
        woven[channel :: channels + 1] = rows[channel : len(opacity) * channels : channels]
    woven[channels :: channels + 1] = opacity
    return bytes(woven)


def _png(header: tuple[int, int, int, int], palette: bytes, rows: bytes, stride: int) -> Image:
    """A file of ``rows``, each ``stride`` bytes long."""
    lines = b"".join(b"\0" + rows[at : at + stride] for at in range(0, stride * header[1], stride))
    parts = {b"IHDR": struct.pack(">IIBBBBB", *header, 0, 0, 0), b"PLTE": palette, b"IDAT": zlib.compress(lines)}
    if not palette:
        del parts[b"PLTE"]
    file = b"\x89PNG\r\n\x1a\n" + b"".join(_part(*each) for each in (parts | {b"IEND": b""}).items())
    return Image("image/png", file)


def _part(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
