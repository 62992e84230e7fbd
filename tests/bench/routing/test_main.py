import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from bench.routing import measure
from bench.routing.__main__ import main
from bench.routing.shapes import sessions
from bench.routing.trace import Trace


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is measured, on less."""
    monkeypatch.setattr(measure, "SHAPES", {"sessions": lambda: sessions(requests=100)})
    monkeypatch.setattr(measure, "TIMED_DECISIONS", 20)


def written(folder: Path, trace: Trace) -> Path:
    file = folder / "trace.jsonl"
    lines = [
        {
            "timestamp": request.at_s * 1000,
            "input_length": request.prompt_tokens,
            "output_length": request.generated_tokens,
            "hash_ids": request.blocks,
        }
        for request in trace.requests
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def test_a_trace_leads_to_three_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, sessions(requests=300))
    assert main([str(file), "--output", str(tmp_path / "results")]) == 0
    results: dict[str, Any] = json.loads((tmp_path / "results" / "routing.json").read_text())
    assert 0 < results["hit_ratio_of_bound"] <= 1.1
    assert results["imbalance"] == max(results["imbalance_requests"], results["imbalance_tokens"]) >= 1
    assert set(results["decision_us"]) == {"p50", "p99", "cpu_p50", "cpu_p99", "prompt_220_kb"}
    assert list(results["policies"]) == ["round-robin", "least-loaded", "hash of first blocks", "prefix affinity"]
    assert len(results["sensitivity"]) == 11
    assert results["trace"]["name"] == "trace.jsonl"
    assert len(results["trace"]["sha256"]) == 64
    assert results["command"] == "make bench-routing TRACE=…/trace.jsonl"
    page = (tmp_path / "results" / "routing.md").read_text()
    assert (
        f"**{results['hit_ratio_of_bound']:.1%} of the pooled bound at imbalance {results['imbalance']:.2f}.**" in page
    )
    assert str(tmp_path) not in page
    picture = ElementTree.parse(tmp_path / "results" / "routing.svg")
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"round-robin", "prefix affinity", f"pooled bound {results['hit_ratio_bound']:.1%}"} <= set(texts)
    assert capsys.readouterr().out.startswith(f"{results['hit_ratio_of_bound']:.1%} of the pooled bound at imbalance ")


def test_a_made_trace_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.routing.__main__.SHAPES", {"sessions": lambda: sessions(requests=100)})
    assert main(["sessions", "--output", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "routing.json").read_text())["trace"]["name"] == "sessions"
    assert "made from a seed" in (tmp_path / "routing.md").read_text()


def test_a_wrong_trace_is_one_line_and_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text("{}\n")
    assert main([str(file), "--output", str(tmp_path / "results")]) == 1
    assert capsys.readouterr().err == f"bench-routing: {file}:1: hash_ids is missing\n"
    assert not (tmp_path / "results").exists()
