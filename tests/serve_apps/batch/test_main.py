"""The command, in a process of its own or this one."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from serve_apps.batch.__main__ import main
from serve_apps.batch.offline import Progress, Run
from tests.serve_apps.batch.conftest import jsonl, line
from tests.serve_apps.batch.fake_gateway import FakeGateway, echo, refuses
from tests.serve_apps.clock import Clock
from tests.serve_apps.gateway.servers import PATIENCE_S, until


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-acme-1")
    monkeypatch.setenv("no_proxy", "*")


def command(folder: Path, url: str, *more: str) -> list[str]:
    return ["run", f"--input={folder}/in.jsonl", f"--output={folder}/out.jsonl", f"--url={url}", *more]


def contents(folder: Path, name: str = "out.jsonl") -> list[str]:
    """What the answers of a file say."""
    records = [json.loads(record) for record in (folder / name).read_text().splitlines()]
    return sorted(record["custom_id"] for record in records)


def test_a_file_is_answered_with_the_key_of_the_environment(
    tmp_path: Path, gateway: FakeGateway, gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_bytes(jsonl(*(line(f"line-{number}") for number in range(50))))
    assert main(command(tmp_path, f"{gateway_url}/v1")) == 0
    assert contents(tmp_path) == sorted(f"line-{number}" for number in range(50))
    assert {(asked.authorization, asked.background) for asked in gateway.asked} == {("Bearer sk-acme-1", False)}
    assert f"[{'#' * 30}] 50/50 100 %" in capsys.readouterr().err
    assert main(command(tmp_path, gateway_url)) == 0
    assert len(gateway.asked) == 50  # there was nothing left to do


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, gateway: FakeGateway, gateway_url: str) -> None:
    gateway.free = 20
    (tmp_path / "in.jsonl").write_bytes(jsonl(*(line(f"line-{number}") for number in range(60))))
    program = [sys.executable, "-m", "serve_apps.batch", *command(tmp_path, gateway_url, "--concurrency=4")]
    process = subprocess.Popen(program, stderr=subprocess.DEVNULL)
    until(lambda: len(gateway.asked) == 24)
    until(lambda: len(contents(tmp_path)) == 20)
    process.kill()
    process.wait()
    with (tmp_path / "out.jsonl").open("ab") as output:
        output.write(b'{"id":"batch_req_7')  # it was killed as it wrote
    gateway.release.set()
    assert main(command(tmp_path, gateway_url)) == 0
    assert contents(tmp_path) == sorted(f"line-{number}" for number in range(60))
    times = Counter(asked.said for asked in gateway.asked)
    assert sorted(times.values()) == [1] * 56 + [2] * 4


def test_a_run_that_is_broken_off_says_how_to_go_on(tmp_path: Path, gateway: FakeGateway, gateway_url: str) -> None:
    gateway.free = 0
    (tmp_path / "in.jsonl").write_bytes(jsonl(line("a")))
    program = [sys.executable, "-m", "serve_apps.batch", *command(tmp_path, gateway_url)]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True)
    until(lambda: gateway.asked)
    os.kill(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert told.splitlines()[-1].endswith("broken off, the same command goes on")
    gateway.release.set()


def test_lines_that_failed_are_tried_again_by_the_next_run(
    tmp_path: Path, gateway: FakeGateway, gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_bytes(jsonl(line("a"), line("x")))
    gateway.answer = lambda asked: echo(asked) if asked.said == "a" else refuses(404, "model_not_found")
    assert main(command(tmp_path, gateway_url)) == 1
    assert contents(tmp_path, "out.jsonl.errors") == ["x"]
    assert f"failures in {tmp_path}/out.jsonl.errors" in capsys.readouterr().err
    gateway.answer = echo
    assert main(command(tmp_path, gateway_url)) == 0
    assert (contents(tmp_path), contents(tmp_path, "out.jsonl.errors")) == (["a", "x"], [])


def test_a_file_with_wrong_lines_is_refused_before_anything_is_sent(
    tmp_path: Path, gateway: FakeGateway, gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_bytes(jsonl(line("a"), line("a")))
    assert main(command(tmp_path, gateway_url)) == 2
    assert f"{tmp_path}/in.jsonl, line 2: The custom_id of this request" in capsys.readouterr().err
    assert (gateway.asked, (tmp_path / "out.jsonl").exists()) == ([], False)


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tmp_path, "http://127.0.0.1:1")) == 2
    assert capsys.readouterr().err == f"{tmp_path}/in.jsonl: No such file or directory\n"


def test_a_place_that_cannot_be_written_is_named_before_anything_is_sent(
    tmp_path: Path, gateway: FakeGateway, gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_bytes(jsonl(line("a")))
    for flag in ("output", "errors"):
        assert main(command(tmp_path, gateway_url, f"--{flag}={tmp_path}/none/out.jsonl")) == 2
        assert capsys.readouterr().err == f"{tmp_path}/none/out.jsonl: No such file or directory\n"
    assert gateway.asked == []


def test_a_disk_that_fills_up_is_said_to_be(
    tmp_path: Path, gateway: FakeGateway, gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_bytes(jsonl(line("a")))
    gateway.answer = lambda _: refuses(404, "model_not_found")
    assert main(command(tmp_path, gateway_url, "--errors=/dev/full")) == 1
    assert capsys.readouterr().err.endswith("No space left on device; the same command goes on\n")


@pytest.mark.parametrize("flags", [("output", "in.jsonl"), ("errors", "in.jsonl"), ("errors", "out.jsonl")])
def test_no_file_is_overwritten_by_another(
    tmp_path: Path, flags: tuple[str, str], gateway: FakeGateway, gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = jsonl(line("a"), line("b"))[:-1]  # without a line end, as editors leave it
    (tmp_path / "in.jsonl").write_bytes(lines)
    flag, file = flags
    assert main(command(tmp_path, gateway_url, f"--{flag}={tmp_path}/./{file}")) == 2
    assert "must be three files" in capsys.readouterr().err
    assert ((tmp_path / "in.jsonl").read_bytes(), gateway.asked) == (lines, [])


@pytest.mark.parametrize("found", [jsonl(line("a")), jsonl(line("a"))[:-1], b"notes of mine\n", b"notes of mine"])
def test_an_output_that_has_something_else_is_left_as_it_is(
    tmp_path: Path, found: bytes, gateway: FakeGateway, gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_bytes(jsonl(line("a")))
    (tmp_path / "out.jsonl").write_bytes(found)
    assert main(command(tmp_path, gateway_url)) == 2
    assert f"{tmp_path}/out.jsonl, line 1: this is no answer" in capsys.readouterr().err
    assert ((tmp_path / "out.jsonl").read_bytes(), gateway.asked) == (found, [])


def test_answers_to_other_lines_are_kept_and_not_counted(
    tmp_path: Path, gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_bytes(jsonl(line("a"), line("b")))
    assert main(command(tmp_path, gateway_url)) == 0
    (tmp_path / "in.jsonl").write_bytes(jsonl(line("b"), line("c")))
    assert main(command(tmp_path, gateway_url)) == 0
    assert "2/2 100 %" in capsys.readouterr().err.splitlines()[-1]
    assert contents(tmp_path) == ["a", "b", "c"]


def test_two_runs_do_not_write_one_output(
    tmp_path: Path, gateway: FakeGateway, gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.free = 0
    (tmp_path / "in.jsonl").write_bytes(jsonl(line("a")))
    program = [sys.executable, "-m", "serve_apps.batch", *command(tmp_path, gateway_url)]
    process = subprocess.Popen(program, stderr=subprocess.DEVNULL)
    until(lambda: gateway.asked)
    assert main(command(tmp_path, gateway_url)) == 2
    assert "another run is writing it" in capsys.readouterr().err
    gateway.release.set()
    assert process.wait(PATIENCE_S) == 0
    assert (contents(tmp_path), len(gateway.asked)) == (["a"], 1)


@pytest.mark.parametrize("flag", ["--concurrency=0", "--concurrency=many", "--timeout=-1"])
def test_a_number_that_makes_no_sense_is_refused(tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(command(tmp_path, "http://127.0.0.1:1", flag))
    assert refused.value.code == 2
    assert "a number from 1" in capsys.readouterr().err


def test_the_bar_grows_with_what_is_done(tmp_path: Path) -> None:
    run = Run(tmp_path / "in", tmp_path / "out", tmp_path / "errors")
    run.total = 4
    clock = Clock()
    progress = Progress(run, clock)
    assert str(progress) == f"[{'.' * 30}] 0/4 0 %, 0.0 lines/s, no answer yet, 0 failed, 0 put off"
    run.answered, run.failed = {"a"}, 1
    clock.now += 4
    assert str(progress) == f"[{'#' * 15}{'.' * 15}] 2/4 50 %, 0.5 lines/s, 4 s left, 1 failed, 0 put off"


def test_a_server_that_is_away_or_refuses_the_key_is_told_at_once(
    tmp_path: Path, gateway: FakeGateway, gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_bytes(jsonl(line("a")))
    assert main(command(tmp_path, "http://127.0.0.1:1")) == 2
    assert "http://127.0.0.1:1 cannot be reached" in capsys.readouterr().err
    gateway.models_status = 401
    assert main(command(tmp_path, gateway_url)) == 2
    assert "refuses the key; set OPENAI_API_KEY" in capsys.readouterr().err
    gateway.models_status = 404
    assert main(command(tmp_path, gateway_url)) == 2
    assert "no server with OpenAI's API" in capsys.readouterr().err
    assert gateway.asked == []
