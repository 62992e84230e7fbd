"""The smallest PDFs that hold text and images, written by hand."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """A page with a text, what ``picture`` gives, and what is drawn beside them, in PDF's own operators."""

    text: str
    pictures: tuple[bytes, ...] = ()
    drawing: str = ""
    size: tuple[float, float] = (600, 200)


def picture(width: int, height: int, content: bytes, space: str = "/DeviceRGB", more: str = "") -> bytes:
    """An image of eight bits a channel: its rows of pixels, or a file as ``more`` says."""
    head = f"/Subtype /Image /Width {width} /Height {height} /ColorSpace {space} /BitsPerComponent 8 {more}"
    return b"<< /Type /XObject %s /Length %d >>\nstream\n%s\nendstream" % (head.encode(), len(content), content)


def zigzag(lines: int, colour: str = "1 0 0", at: int = 20) -> str:
    """A drawing of so many lines: a thick one up and down."""
    turns = " ".join(f"{at + 500 * line / lines:.2f} {20 + 60 * (line % 2)} l" for line in range(1, lines + 1))
    return f"{colour} RG 4 w {at} 20 m {turns} S"


def pdf(*pages: str | Page) -> bytes:
    """A PDF with these pages."""
    given = [Page(page) if isinstance(page, str) else page for page in pages]
    pictures = list(dict.fromkeys(each for page in given for each in page.pictures))
    numbers = [4 + 2 * index for index in range(len(given))]
    names = {each: 4 + 2 * len(given) + index for index, each in enumerate(pictures)}
    # Each page may draw all of them, as many programs write it.
    drawable = " ".join(f"/Im{number} {number} 0 R" for number in names.values())
    kids = " ".join(f"{number} 0 R" for number in numbers)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(given)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, page in zip(numbers, given, strict=True):
        drawing = f"BT /F1 12 Tf 20 100 Td ({page.text}) Tj ET"
        drawing += "".join(f" q 100 0 0 100 0 0 cm /Im{names[each]} Do Q" for each in page.pictures)
        drawing += f" {page.drawing}" if page.drawing else ""
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {page.size[0]} {page.size[1]}] "
            f"/Contents {number + 1} 0 R "
            f"/Resources << /Font << /F1 3 0 R >> /XObject << {drawable} >> >> >>".encode()
        )
        objects.append(f"<< /Length {len(drawing)} >>\nstream\n{drawing}\nendstream".encode())
    return _file([*objects, *pictures])


def _file(objects: Sequence[bytes]) -> bytes:
    body = b"%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    trailer = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    return body + f"{trailer}startxref\n{len(body)}\n%%EOF\n".encode()
