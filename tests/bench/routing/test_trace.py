import hashlib
from pathlib import Path

import pytest

from bench.routing.trace import BLOCK_TOKENS, TOKEN_BYTES, Request, TraceError, read
from serve_apps.gateway.affinity import beginnings

LINE = '{"timestamp": 27, "input_length": 700, "output_length": 5, "hash_ids": [0, 14]}'


def written(folder: Path, *lines: str) -> Path:
    file = folder / "trace.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_trace_is_read_in_the_order_of_its_times(tmp_path: Path) -> None:
    file = written(tmp_path, LINE, "", LINE.replace("27", "1.5").replace("[0, 14]", "[]"))
    trace = read(file)
    assert trace.requests == (Request(0.0015, 700, 5, ()), Request(0.027, 700, 5, (0, 14)))
    assert trace.name == "trace.jsonl"
    assert trace.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert trace.blocks == 2


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON: unexpected end of data"),
        ("[1]", "not an object, but list"),
        (LINE.replace('"timestamp"', '"time"'), "timestamp is missing"),
        (LINE.replace('"hash_ids"', '"hashes"'), "hash_ids is missing"),
        (LINE.replace("700", '"700"'), "input_length is not a number of at least 0: '700'"),
        (LINE.replace("5,", "-5,"), "output_length is not a number of at least 0: -5"),
        (LINE.replace("27", "true"), "timestamp is not a number of at least 0: True"),
        (LINE.replace("[0, 14]", "[0, 1.5]"), "hash_ids is not a list of integers"),
        (LINE.replace("[0, 14]", "7"), "hash_ids is not a list of integers"),
    ],
)
def test_a_wrong_line_is_named_in_one_line(tmp_path: Path, line: str, problem: str) -> None:
    file = written(tmp_path, LINE, line)
    with pytest.raises(TraceError) as raised:
        read(file)
    assert str(raised.value).startswith(f"{file}:2: {problem}")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none\.jsonl: No such file or directory$"):
        read(tmp_path / "none.jsonl")


def test_a_file_without_requests_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"trace\.jsonl: no requests; one JSON object a line is a trace$"):
        read(written(tmp_path, ""))


def test_prompts_share_as_text_what_their_blocks_share() -> None:
    one, other = (Request(0, 0, 0, blocks).prompt() for blocks in ((1, 2, 3), (1, 2, 4)))
    block = BLOCK_TOKENS * TOKEN_BYTES
    assert len(one) == len(other) == 3 * block
    assert one[: 2 * block] == other[: 2 * block]
    assert one[2 * block :] != other[2 * block :]
    assert set(beginnings(one)) & set(beginnings(other)) == set(beginnings(one[: 2 * block]))
