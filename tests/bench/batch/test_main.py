"""The program, with rounds that are made up; a real one takes a minute: ``python -m bench.batch --quick``."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.batch import __main__ as program
from bench.batch import measure
from bench.batch.report import _ROWS
from bench.batch.service import Service
from bench.gateway.measures import Failed


@contextmanager
def service() -> Iterator[Service]:
    yield Service(1, "key")


@pytest.fixture(autouse=True)
def _made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ratios = iter([1.0, 0.5, 0.9, 0.95])

    def round_of(*_: Any) -> dict[str, float]:
        return dict.fromkeys(_ROWS, 1.0) | {"throughput_ratio": next(ratios)}

    monkeypatch.setattr(program, "running", service)
    monkeypatch.setattr(measure, "round_of", round_of)


def test_a_short_run_leads_to_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--rounds=3", f"--output={tmp_path}"]) == 0
    results = json.loads((tmp_path / "batch.json").read_text())
    assert (results["throughput_ratio"]["median"], results["throughput_ratio"]["rounds"]) == (0.9, [0.5, 0.9, 0.95])
    assert results["ttft_p95_ratio"]["median"] == 1.0
    page = (tmp_path / "batch.md").read_text()
    assert "| 0.9 | 0.5, 0.9, 0.95 |" in page
    assert page in capsys.readouterr().out


def test_requests_that_fail_are_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: Any) -> dict[str, float]:
        raise Failed("3 requests failed")

    monkeypatch.setattr(measure, "round_of", failing)
    assert program.main([f"--output={tmp_path / 'none'}"]) == 1
    assert "bench-batch: 3 requests failed" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
