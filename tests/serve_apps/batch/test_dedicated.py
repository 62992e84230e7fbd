"""A job's lines and files, with answers made up: Ray Data is in tests/serve/test_batch_job.py."""

import json
from pathlib import Path

import pytest

from serve_apps.batch import dedicated
from serve_apps.batch.answering import BUSY, FAILURES
from serve_apps.batch.config import JobArgs
from serve_apps.batch.dedicated import Hold, Job, Piece, TakenAway
from serve_apps.batch.lines import InputWrong
from serve_apps.batch.storage import BLOCK_BYTES, Storage
from tests.serve_apps.batch.conftest import jsonl, line
from tests.serve_apps.gateway.servers import until


@pytest.fixture
def args(tmp_path: Path) -> JobArgs:
    return JobArgs(input=f"file://{tmp_path}/in", output=f"file://{tmp_path}/out", serve={})


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """A folder with two files, of which the first is read in several spans."""
    (tmp_path / "in").mkdir()
    text = "x" * (BLOCK_BYTES // 4)
    long = [line(f"a{number}", body={"model": "chat", "messages": [text]}) for number in range(10)]
    (tmp_path / "in" / "1.jsonl").write_bytes(jsonl(*long))
    (tmp_path / "in" / "2.jsonl").write_bytes(b"\n" + jsonl(line("b0"), line("b1")).rstrip())
    (tmp_path / "in" / "notes.txt").write_text("not a line")
    return tmp_path


def ids(args: JobArgs, pieces: list[Piece]) -> list[str]:
    return [row["custom_id"] for piece in pieces for row in dedicated.lines_of(args, piece)]


def answer(args: JobArgs, *custom_ids: str, status: int = 200) -> None:
    """Keep answers, as a worker does."""
    judged = [dedicated.judged(args, one, status, '{"object": "x"}', final=True) for one in custom_ids]
    dedicated.parts_of(Storage(args.output)).write([one for one in judged if one is not None])


@pytest.mark.usefixtures("lines")
def test_all_lines_are_left_and_then_those_that_have_no_answer(args: JobArgs) -> None:
    job = Job(args)
    assert job.record.request_counts.total == 12
    everything = [*(f"a{number}" for number in range(10)), "b0", "b1"]
    assert ids(args, job.left()) == everything
    assert len(job.left()) > 3
    answer(args, "a0", "a1", "a2", "a9", "b1")
    answer(args, "b0", status=404)
    successor = Job(args)
    assert ids(args, successor.left()) == ["a3", "a4", "a5", "a6", "a7", "a8"]
    assert successor.answered == 6


def test_the_files_have_each_line_once_whoever_answered_it(args: JobArgs, lines: Path) -> None:
    job = Job(args)
    answer(args, *(f"a{number}" for number in range(10)), "b0")
    answer(args, "a3", "b0")  # a worker that was thought dead
    with pytest.raises(RuntimeError, match=r"11 \+ 0 of 12 lines"):
        job.finish()
    answer(args, "b1", status=400)
    record = job.finish()
    assert (record.status, record.request_counts.completed, record.request_counts.failed) == ("completed", 11, 1)
    output = [json.loads(one) for one in (lines / "out" / "output.jsonl").read_text().splitlines()]
    assert len(output) == len({one["custom_id"] for one in output}) == 11
    (error,) = map(json.loads, (lines / "out" / "errors.jsonl").read_text().splitlines())
    assert (error["custom_id"], error["response"]["status_code"], error["error"]) == ("b1", 400, None)
    assert not (lines / "out" / "parts").exists()
    assert Job(args).record == record  # nothing is left for another driver


def test_a_file_may_be_the_input(args: JobArgs, lines: Path) -> None:
    single = args.model_copy(update={"input": f"file://{lines}/in/2.jsonl"})
    job = Job(single)
    assert job.record.files == {"": (lines / "in" / "2.jsonl").stat().st_size}
    assert ids(single, job.left()) == ["b0", "b1"]


def test_an_input_with_wrong_lines_is_refused_before_anything_is_asked(args: JobArgs, lines: Path) -> None:
    (lines / "in" / "3.jsonl").write_bytes(jsonl(line("b0")) + b"{")
    with pytest.raises(InputWrong) as wrong:
        Job(args)
    assert [error.code for error in wrong.value.errors] == ["duplicate_custom_id", "invalid_json_line"]
    assert not (lines / "out").exists()


def test_an_output_folder_is_one_inputs(args: JobArgs, lines: Path) -> None:
    Job(args)
    with (lines / "in" / "2.jsonl").open("ab") as more:
        more.write(b"\n" + jsonl(line("b2")))
    with pytest.raises(InputWrong, match="set another output"):
        Job(args)


def test_an_input_that_is_not_there_is_named(args: JobArgs) -> None:
    with pytest.raises(FileNotFoundError, match="/in"):
        Job(args)


@pytest.mark.parametrize("status", sorted(BUSY | FAILURES))
def test_a_failure_is_asked_again_until_the_last_pass(args: JobArgs, status: int) -> None:
    assert dedicated.judged(args, "a", status, "{}", final=False) is None
    last = dedicated.judged(args, "a", status, "{}", final=True)
    assert last is not None
    assert last.outcome == "errors"


@pytest.mark.parametrize(("status", "outcome"), [(200, "output"), (400, "errors"), (404, "errors")])
def test_what_will_not_change_is_an_answer(args: JobArgs, status: int, outcome: str) -> None:
    given = dedicated.judged(args, "a", status, "{}", final=False)
    assert given is not None
    assert given.outcome == outcome


def test_one_driver_has_a_job_at_a_time(args: JobArgs) -> None:
    with Hold(args.output, lease_s=0.6) as first:
        first.check()
        thief = Storage(args.output)
        thief.write("leases/job", b"another driver")
        until(lambda: first._lost)
        with pytest.raises(TakenAway):
            first.check()
    assert thief.read("leases/job") == b"another driver"
    with Hold(args.output, lease_s=0.6) as second:  # when that one has not renewed it for its time
        second.check()
