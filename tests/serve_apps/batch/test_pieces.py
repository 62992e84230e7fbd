import asyncio
import io
from pathlib import Path

import pytest

from serve_apps.batch.lines import read
from serve_apps.batch.pieces import Left, Sending, pieces
from serve_apps.batch.storage import BLOCK_BYTES, Storage
from serve_apps.common.gateway_client import Reply
from tests.serve_apps.batch.conftest import jsonl, line


def left(concurrency: int = 16, senders: int = 2, piece_lines: int = 8) -> Left:
    return Left("acme", "batch_1", "in.jsonl", (), piece_lines, concurrency, senders)


def ids_of(content: bytes, answered: set[str], most: int) -> list[list[str]]:
    """The custom ids in each piece."""
    found = (content[start : start + size] for start, size in pieces(io.BytesIO(content), answered, most))
    return [[read(one).custom_id for one in text.split(b"\n") if one.strip()] for text in found]


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        (set(), [["0", "1"], ["2", "3"], ["4"]]),
        ({"0", "4"}, [["1", "2"], ["3"]]),
        ({"1", "2"}, [["0"], ["3", "4"]]),
        ({"0", "1", "2", "3", "4"}, []),
    ],
)
def test_a_piece_has_so_many_lines_that_stand_together_and_none_that_is_answered(
    answered: set[str], expected: list[list[str]]
) -> None:
    content = jsonl(*(line(str(number)) for number in range(5)))
    assert ids_of(content, answered, 2) == expected


def test_blank_lines_and_a_last_one_without_an_end_are_no_trouble() -> None:
    content = b"\n" + jsonl(line("a")) + b"  \n\n" + jsonl(line("b"), line("c")).removesuffix(b"\n")
    assert ids_of(content, set(), 8) == [["a"], ["b"], ["c"]]


def test_an_input_that_is_read_in_blocks_is_whole() -> None:
    content = jsonl(*(line(f"{number}-{'x' * 100}") for number in range(BLOCK_BYTES // 100)))
    assert len(content) > 2 * BLOCK_BYTES
    assert [one for piece in ids_of(content, set(), 100) for one in piece] == [
        f"{number}-{'x' * 100}" for number in range(BLOCK_BYTES // 100)
    ]


@pytest.mark.parametrize(("concurrency", "senders", "share"), [(16, 2, 8), (17, 2, 8), (1, 4, 1)])
def test_processes_share_the_lines_that_a_batch_has_at_a_time(concurrency: int, senders: int, share: int) -> None:
    assert left(concurrency, senders).share == share


@pytest.mark.parametrize(("piece_lines", "at_a_time"), [(8, 16), (128, 2)])
def test_a_process_has_pieces_of_twice_as_many_lines_as_have_a_turn(piece_lines: int, at_a_time: int) -> None:
    assert left(concurrency=128, piece_lines=piece_lines).pieces_at_a_time == at_a_time


class Busy:
    """Refuses the first of all lines once."""

    def __init__(self) -> None:
        self.most = self.under_way = self.asked = 0

    async def send(self, path: str, body: bytes, request_id: str) -> Reply:
        self.asked += 1
        if self.asked == 1:
            return Reply(429, b"{}", 1)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.01)
        self.under_way -= 1
        return Reply(200, b"{}")


def test_a_piece_is_answered_with_the_process_share_of_lines_at_a_time(tmp_path: Path) -> None:
    content = jsonl(*(line(str(number)) for number in range(10)))
    (tmp_path / "in.jsonl").write_bytes(content)
    busy = Busy()
    sending = Sending(Storage(f"file://{tmp_path}"), busy, left(concurrency=6))
    first, *_ = pieces(io.BytesIO(content), set(), 8)
    sent = asyncio.run(sending.send(*first))
    assert sorted(answer.custom_id for answer in sent.answers) == [str(number) for number in range(8)]
    assert (sent.refused, busy.asked) == (1, 9)
    assert busy.most <= 3
