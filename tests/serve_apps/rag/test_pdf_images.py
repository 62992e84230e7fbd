import zlib
from io import BytesIO
from typing import Any

import pytest
from PIL import Image as Pillow
from pypdf import PdfReader
from pypdf.generic import (
    ArrayObject,
    BooleanObject,
    ByteStringObject,
    DecodedStreamObject,
    DictionaryObject,
    EncodedStreamObject,
    NameObject,
    NumberObject,
    StreamObject,
)

from serve_apps.rag import pdf_images
from tests.serve_apps.rag.pdf import Page, pdf, picture

MAX_PIXELS = 100
GREY, RGB, CMYK = (NameObject(f"/Device{name}") for name in ("Gray", "RGB", "CMYK"))


def image(data: bytes, space: Any, bits: int = 8, width: int = 2, height: int = 2, **more: Any) -> StreamObject:
    """An image of a PDF; ``more`` are other entries of it."""
    stream = EncodedStreamObject() if "Filter" in more else DecodedStreamObject()
    stream._data = data
    entries: dict[str, Any] = {
        "Width": NumberObject(width),
        "Height": NumberObject(height),
        "BitsPerComponent": NumberObject(bits),
    }
    if space is not None:
        entries["ColorSpace"] = space
    stream.update({NameObject(f"/{name}"): value for name, value in (entries | more).items()})
    return stream


def pixels(stream: StreamObject) -> tuple[str, list[Any]]:
    encoded = pdf_images.encoded(stream, MAX_PIXELS)
    assert encoded is not None
    assert encoded.media_type == "image/png"
    seen = Pillow.open(BytesIO(encoded.content))
    seen.load()
    return seen.mode, list(seen.get_flattened_data())


def icc(channels: int) -> ArrayObject:
    profile = DecodedStreamObject()
    profile[NameObject("/N")] = NumberObject(channels)
    return ArrayObject([NameObject("/ICCBased"), profile])


def indexed(base: NameObject, colours: bytes) -> ArrayObject:
    return ArrayObject([NameObject("/Indexed"), base, NumberObject(1), ByteStringObject(colours)])


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)]
ROWS = b"".join(map(bytes, COLOURS))


@pytest.mark.parametrize("space", [RGB, icc(3), ArrayObject([NameObject("/CalRGB"), DictionaryObject()])])
def test_colours_are_kept(space: Any) -> None:
    assert pixels(image(ROWS, space, ImageMask=BooleanObject(False))) == ("RGB", COLOURS)


@pytest.mark.parametrize("space", [GREY, icc(1)])
def test_greys_are_kept(space: Any) -> None:
    assert pixels(image(b"\0\x40\x80\xff", space)) == ("L", [0, 64, 128, 255])


def test_rows_of_bits_end_with_a_byte() -> None:
    mode, seen = pixels(image(b"\x80\x40", GREY, bits=1))
    assert (mode, [bool(pixel) for pixel in seen]) == ("1", [True, False, False, True])


@pytest.mark.parametrize(("base", "colours"), [(RGB, bytes([1, 2, 3, 4, 5, 6])), (GREY, bytes([1, 4]))])
def test_a_palette_is_kept(base: NameObject, colours: bytes) -> None:
    encoded = pdf_images.encoded(image(b"\0\1\1\0", indexed(base, colours)), MAX_PIXELS)
    assert encoded is not None
    seen = Pillow.open(BytesIO(encoded.content)).convert("RGB").getpixel((1, 0))
    assert seen == ((4, 5, 6) if base == RGB else (4, 4, 4))


def test_opacity_is_kept_where_it_is_as_large_as_the_image() -> None:
    opacity = image(b"\0\x40\x80\xff", GREY)
    shown = [(*colour, alpha) for colour, alpha in zip(COLOURS, [0, 64, 128, 255], strict=True)]
    assert pixels(image(ROWS, RGB, SMask=opacity)) == ("RGBA", shown)
    assert pixels(image(ROWS, RGB, SMask=image(b"\0", GREY, width=1, height=1))) == ("RGB", COLOURS)


def test_compressed_rows_are_unpacked() -> None:
    assert pixels(image(zlib.compress(ROWS), RGB, Filter=NameObject("/FlateDecode"))) == ("RGB", COLOURS)


def test_a_jpeg_stays_as_it_is_whatever_it_is_packed_in() -> None:
    file = b"\xff\xd8 a file"
    packed = ArrayObject([NameObject("/FlateDecode"), NameObject("/DCTDecode")])
    for stream in (
        image(file, RGB, Filter=NameObject("/DCTDecode")),
        image(zlib.compress(file), RGB, Filter=packed),
    ):
        assert pdf_images.encoded(stream, MAX_PIXELS) == pdf_images.Image("image/jpeg", file)


@pytest.mark.parametrize(
    "stream",
    [
        image(ROWS, CMYK),
        image(ROWS, None),
        image(ROWS, RGB, ImageMask=BooleanObject(True)),
        image(ROWS, RGB, Filter=NameObject("/JPXDecode")),
        image(ROWS, RGB, bits=4),
        image(b"\0" * 4, GREY, Decode=ArrayObject([NumberObject(1), NumberObject(0)])),
        image(ROWS[:-1], RGB),
        image(ROWS, RGB, width=MAX_PIXELS),
    ],
    ids=["cmyk", "no colours", "mask", "jpeg 2000", "bits", "negative", "cut off", "large"],
)
def test_what_is_of_another_kind_or_too_large_is_left_out(stream: StreamObject) -> None:
    assert pdf_images.encoded(stream, MAX_PIXELS) is None


def test_a_page_has_the_images_that_it_draws() -> None:
    red, blue = picture(1, 1, b"\xff\0\0"), picture(1, 1, b"\0\0\xff")
    document = PdfReader(BytesIO(pdf("none", Page("one", (red,)), Page("two", (blue, red, blue)))))
    drawn = [[each.get_data() for each in pdf_images.drawn(page)] for page in document.pages]
    assert drawn == [[], [b"\xff\0\0"], [b"\0\0\xff", b"\xff\0\0"]]


def test_images_in_forms_are_drawn_and_forms_in_themselves_have_an_end() -> None:
    inner = picture(1, 1, b"\xff\0\0")
    # Objects 4 and 5 are the page and what it draws, 6 the form, 7 the image.
    drawing = b"/Im6 Do /Im7 Do"
    form = b"<< /Type /XObject /Subtype /Form /Length %d >>\nstream\n%s\nendstream" % (len(drawing), drawing)
    content = pdf(Page("form", (form, inner))).replace(b"/Im7 Do Q", b"        Q")
    [page] = PdfReader(BytesIO(content)).pages
    assert [each.get_data() for each in pdf_images.drawn(page)] == [b"\xff\0\0"]
