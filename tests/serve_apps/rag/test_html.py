import pytest

from serve_apps.rag import html
from serve_apps.rag.sections import Section


def read(page: str | bytes, charset: str | None = None) -> list[Section]:
    return list(html.read(page.encode() if isinstance(page, str) else page, charset))


def text(page: str | bytes, charset: str | None = None) -> str:
    [section] = read(page, charset)
    return section.text


def test_title_and_headings_stand_above_and_furniture_is_left_out() -> None:
    content = """<!doctype html><html><head><title>Guide</title><style>p {}</style></head><body>
<nav>Home | About</nav><!-- a comment -->
<h1>Guide</h1><p>An <b>intro</b>
 in two lines.</p><script>if (a < b) track("</p>")</script>
<h2>Setup <em>now</em></h2><ul><li>one</li><li>two</li></ul><footer>Imprint</footer></body></html>"""
    assert read(content) == [
        Section("An intro\n in two lines.".replace("\n", ""), ("Guide",)),
        Section("- one\n- two", ("Guide", "Setup now")),
    ]


def test_code_keeps_its_lines_and_is_fenced() -> None:
    assert (
        text("Run <code>this</code>:<pre>a\n\n\n  b &lt; c</pre>then") == "Run this:\n\n```\na\n\n  b < c\n```\n\nthen"
    )


def test_a_row_of_a_table_is_a_line() -> None:
    page = "<table><tr><th>Name<th>Size</tr><tr><td>a</td><td>1</td></tr></table>"
    assert [line.strip() for line in text(page).split("\n")] == ["| Name | Size |", "| a | 1 |"]


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("a < b and 1<2", "a < b and 1<2"),
        ("a &amp; b &unknown; &#65; &#xffffffffff;", "a & b &unknown; A \N{REPLACEMENT CHARACTER}"),
        ('<a title="x > y" href=z>link</a>', "link"),
        ("<p>never closed", "never closed"),
        ("</p></nav>never opened", "never opened"),
        ("a<br/>b", "a\nb"),
        ("<nav><aside>x</nav>after", "after"),
        ("a <? processing ?> b<![CDATA[ c ]]>", "a  b"),
        ("a <!-- never closed", "a"),
    ],
)
def test_what_browsers_forgive_is_read(page: str, found: str) -> None:
    assert text(page) == found


@pytest.mark.parametrize(
    ("page", "charset", "found"),
    [
        ("naïve".encode(), None, "naïve"),
        ("naïve".encode("utf-8-sig"), None, "naïve"),
        ("naïve €".encode("windows-1252"), None, "naïve €"),
        ("<meta charset=koi8-r>привет".encode("koi8-r"), None, "привет"),
        ("<meta charset=klingon>naïve".encode(), None, "naïve"),
        ("привет".encode("koi8-r"), "koi8-r", "привет"),
    ],
)
def test_the_charset_is_the_stated_one_or_the_pages_own_or_the_webs(
    page: bytes, charset: str | None, found: str
) -> None:
    assert text(page, charset) == found


def test_another_charset_than_the_stated_one_is_an_error() -> None:
    with pytest.raises(UnicodeError):
        read("naïve".encode("latin-1"), "utf-8")
    with pytest.raises(LookupError):
        read("naïve", "klingon")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("hostile", ["<!--", "<a ", "</", "<", "<![CDATA[", '<a href="', "<script>", "&#", "<a = "])
def test_no_page_takes_more_than_linear_time(hostile: str) -> None:
    """The parser of the standard library takes minutes for each of these."""
    assert sum(len(section.text) for section in read(hostile * (500_000 // len(hostile)))) <= 500_000
