import io
import json
from typing import Any

import pytest

from serve_apps.batch.lines import MAX_ERRORS, Check, Line, Wrong, blocks, read
from serve_apps.batch.storage import BLOCK_BYTES
from tests.serve_apps.batch.conftest import CHAT, line

RIGHT = line("a")


def encoded(**changes: Any) -> bytes:
    return json.dumps({key: value for key, value in (RIGHT | changes).items() if value is not ...}).encode()


def test_a_right_line_is_a_request() -> None:
    body = {"model": "chat", "messages": [{"role": "user", "content": "ä"}], "stream": False}
    request = read(encoded(body=body), CHAT)
    assert request == Line("a", CHAT, "chat", json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("text", "code", "param"),
    [
        (b'{"custom_id": ', "invalid_json_line", None),
        (b'{"custom_id": "\xff"}', "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (encoded(custom_id=...), "missing_required_parameter", "custom_id"),
        (encoded(custom_id=""), "invalid_custom_id", "custom_id"),
        (encoded(custom_id=7), "invalid_custom_id", "custom_id"),
        (encoded(custom_id="x" * 513), "invalid_custom_id", "custom_id"),
        (encoded(method=...), "missing_required_parameter", "method"),
        (encoded(method="GET"), "invalid_method", "method"),
        (encoded(url=...), "missing_required_parameter", "url"),
        (encoded(url="/v1/embeddings"), "invalid_url", "url"),
        (encoded(url="/v1/models"), "invalid_url", "url"),
        (encoded(body=...), "missing_required_parameter", "body"),
        (encoded(body=[]), "invalid_body", "body"),
        (
            encoded(body=...)[:-1] + b', "body": {"model": "chat", "x": ' + b"[" * 400 + b"]" * 400 + b"}}",
            "invalid_body",
            "body",
        ),
        (encoded(body=...)[:-1] + b', "body": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json_line", None),
        (b'{"custom_id": "\\ud800"}', "invalid_json_line", None),
        (encoded()[:-1] + b', "n": NaN}', "invalid_json_line", None),
        (b"\xef\xbb\xbf" + encoded(), "invalid_json_line", None),
        (encoded().replace(b"a", b"\0", 1), "invalid_json_line", None),
        (encoded(body={"messages": []}), "missing_required_parameter", "body.model"),
        (encoded(body={"model": 7}), "missing_required_parameter", "body.model"),
        (encoded(body={"model": "chat", "stream": True}), "invalid_stream", "body.stream"),
    ],
)
def test_a_wrong_line_says_what_is_wrong(text: bytes, code: str, param: str | None) -> None:
    with pytest.raises(Wrong) as wrong:
        read(text, CHAT)
    assert (wrong.value.code, wrong.value.param) == (code, param)


def test_without_an_endpoint_a_line_may_name_each_of_a_batch() -> None:
    assert read(encoded(url="/v1/embeddings")).url == "/v1/embeddings"
    with pytest.raises(Wrong):
        read(encoded(url="/v1/models"))


def test_lines_keep_their_numbers_over_blocks_and_blank_lines() -> None:
    texts = [b"a" * 100, b"", b"b" * BLOCK_BYTES, b"  ", b"c"]
    found = [pair for block in blocks(io.BytesIO(b"\n".join(texts))) for pair in block]
    assert found == [(1, texts[0]), (3, texts[2]), (5, texts[4])]
    assert [pair for block in blocks(io.BytesIO(b"a\r\n\n")) for pair in block] == [(1, b"a\r")]


def check(*texts: bytes, max_requests: int = 10) -> Check:
    found = Check(CHAT, max_requests)
    for number, text in enumerate(texts, 1):
        found.see(number, text)
    found.finish()
    return found


def test_a_file_of_right_lines_has_no_fault() -> None:
    found = check(encoded(), encoded(custom_id="b"), max_requests=2)
    assert (found.total, found.errors) == (2, [])


def test_a_custom_id_may_come_once() -> None:
    found = check(encoded(), encoded(custom_id="b"), encoded())
    assert [(error.code, error.line) for error in found.errors] == [("duplicate_custom_id", 3)]


def test_a_file_without_lines_or_with_too_many_is_wrong() -> None:
    assert [error.code for error in check().errors] == ["empty_file"]
    (error,) = check(encoded(), encoded(custom_id="b"), max_requests=1).errors
    assert error.message == "The input file has 2 requests; a batch may have 1."


def test_no_more_faults_are_told_than_anybody_reads() -> None:
    found = check(*[b"{"] * (MAX_ERRORS + 1), max_requests=1000)
    assert (found.total, len(found.errors)) == (MAX_ERRORS + 1, MAX_ERRORS)
