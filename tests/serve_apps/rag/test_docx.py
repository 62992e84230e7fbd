from io import BytesIO
from zipfile import ZipFile

import pytest

from serve_apps.rag import docx as reader
from serve_apps.rag.sections import Section, Unreadable
from tests.serve_apps.rag.docx import CONTENT_TYPES, docx, heading, paragraph


def read(content: bytes) -> list[Section]:
    return list(reader.read(content, None))


def test_headings_are_known_by_their_styles_names() -> None:
    content = docx(
        heading("Handbook", "Titel")
        + paragraph("Before.")
        + heading("Start", "berschrift1")
        + paragraph("One.")
        + heading("First", "Eigene")
        + paragraph("Two.")
        + heading("Second", "Gliederung")
        + paragraph("Three.")
        + paragraph("Last", '<w:outlineLvl w:val="0"/>')
        + paragraph("Four.", '<w:pStyle w:val="berschrift1"/><w:outlineLvl w:val="9"/>')
    )
    assert read(content) == [
        Section("Before.", ("Handbook",)),
        Section("One.", ("Handbook", "Start")),
        Section("Two.", ("Handbook", "Start", "First")),
        Section("Three.", ("Handbook", "Start", "Second")),
        Section("Four.", ("Handbook", "Last")),
    ]


def test_lists_and_tables_become_lines() -> None:
    item = '<w:numPr><w:ilvl w:val="{}"/><w:numId w:val="1"/></w:numPr>'
    cell = "<w:tc>{}</w:tc>"
    rows = "".join(
        f"<w:tr>{cell.format(paragraph(a))}{cell.format(paragraph(b) + paragraph('more'))}</w:tr>"
        for a, b in (("Name", "Size"), ("a", "1"))
    )
    nested = (
        f"<w:tbl><w:tr>{cell.format('<w:tbl><w:tr>' + cell.format(paragraph('in')) + '</w:tr></w:tbl>')}</w:tr></w:tbl>"
    )
    content = docx(
        paragraph("Take:")
        + paragraph("tea", item.format(0))
        + paragraph("green", item.format(1))
        + f"<w:tbl>{rows}</w:tbl>"
        + nested
    )
    assert read(content)[0].text == "Take:\n\n- tea\n  - green\n\n| Name | Size more |\n| a | 1 more |\n\n| in |"


def test_items_may_be_items_by_their_style() -> None:
    item = '<w:pStyle w:val="Liste"/>'
    not_one = f'{item}<w:numPr><w:numId w:val="0"/></w:numPr>'
    content = docx(paragraph("tea", item) + paragraph("milk", item) + paragraph("Then.", not_one))
    assert read(content)[0].text == "- tea\n- milk\n\nThen."


def test_of_changes_the_new_text_counts_and_of_twins_one() -> None:
    alternatives = (
        '<mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006">'
        f"<mc:Choice>{paragraph('box')}</mc:Choice><mc:Fallback>{paragraph('box')}</mc:Fallback></mc:AlternateContent>"
    )
    runs = (
        "<w:pPr><w:tabs><w:tab w:val='left'/></w:tabs></w:pPr>"
        "<w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t xml:space='preserve'> c</w:t></w:r>"
        "<w:del><w:r><w:delText>old</w:delText></w:r></w:del><w:ins><w:r><w:t>new</w:t></w:r></w:ins>"
        "<w:moveFrom><w:r><w:t>moved</w:t></w:r></w:moveFrom>"
        "<w:hyperlink><w:r><w:t>link</w:t></w:r></w:hyperlink><w:r><w:instrText>PAGE</w:instrText></w:r>"
    )
    content = docx(f"<w:p>{runs}</w:p><w:p><w:r>{alternatives}</w:r></w:p>")
    assert read(content)[0].text == "a\tb\n cnewlink\n\nbox"


def test_one_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_TEXT_BYTES", 2**20)
    assert read(docx(paragraph("x" * 2**19)))
    bomb = docx(paragraph("x" * 2**20))
    assert len(bomb) < 5000
    with pytest.raises(Unreadable, match="unpacks to more than 1 MiB"):
        read(bomb)


def test_styles_and_types_have_a_bound_of_their_own() -> None:
    big = "<a>" + "x" * reader.MAX_DESCRIPTION_BYTES + "</a>"
    for content in (docx("", styles=big), docx("", content_types=big)):
        with pytest.raises(Unreadable, match="unpacks to more than 4 MiB"):
            read(content)


LAUGHS = '<!DOCTYPE w [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
DEEP = "<w:p>" * 300 + "</w:p>" * 300


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (docx(paragraph("&b;"), prolog=LAUGHS), "holds XML with a document type, which Word does not write"),
        (docx(DEEP), "holds elements 256 deep in each other"),
        (docx("<w:p>"), "is not a readable Word document"),
        (docx(paragraph("text"))[:-40], "is not a readable Word document"),
        (docx(paragraph("a", '<w:outlineLvl w:val="x"/>')), "is not a readable Word document"),
        (docx("", content_types=CONTENT_TYPES.replace("wordprocessingml", "spreadsheetml")), "is not a Word document"),
    ],
)
def test_a_hostile_one_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(Unreadable, match=f"^{problem}$"):
        read(content)


def test_an_archive_of_another_kind_is_refused() -> None:
    file = BytesIO()
    with ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(Unreadable, match="is not a readable Word document"):
        read(file.getvalue())


def test_an_encrypted_one_says_so() -> None:
    locked = bytearray(docx(paragraph("text")))
    for begins in (b"PK\x03\x04", b"PK\x01\x02"):
        at = locked.index(begins)
        locked[at + (6 if begins == b"PK\x03\x04" else 8)] |= 1
    with pytest.raises(Unreadable, match="is encrypted; send it without a password"):
        read(bytes(locked))


def test_an_indent_is_bounded() -> None:
    item = '<w:numPr><w:ilvl w:val="999999999"/></w:numPr>'
    assert read(docx(paragraph("first") + paragraph("deep", item)))[0].text.endswith(f"{'  ' * 8}- deep")
