import json
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from bench.gateway import report
from bench.gateway.__main__ import CHOOSING, RESULTS
from bench.gateway.results import beside_router, completed, keys, tables
from tests.bench.gateway.test_results import MOCK, REAL


@pytest.fixture
def document() -> dict[str, Any]:
    titles = {"ours": "this gateway", "vllm-router": "vllm-router 0.1.17", "stock": "Ray Serve LLM <defaults>"}
    return {
        **keys(MOCK, REAL, "ours"),
        "features_on": keys(MOCK, REAL, "features"),
        "model_on_ray": {name: beside_router(MOCK, name) for name in ("ours", "features")},
        "systems": tables(MOCK, titles),
        "real": tables(REAL, {"bare": "bare vllm serve", "ours": "this gateway on Ray"}),
        "memory_mb": {"real:bare": {"title": "SmolLM2: bare", "path": 0, "model": 1500}},
        "failures": {},
        "rounds": 5,
        "machine": {"cpu": "a CPU", "cores": 2, "memory_gb": 24, "kernel": "6", "load_before": 0.1},
        "versions": {"ray": "2.60.0"},
        "command": "python -m bench.gateway",
        "date": "2026-11-24",
        "counted": "Threads.",
    }


def test_the_report_has_every_goal_with_its_value(document: dict[str, Any]) -> None:
    text = report.markdown(document)
    assert "| CPU per streamed token ÷ vllm-router's (`cpu_per_token_vs_router`) | ≤ 2.5 | 1.5 | 2 |" in text
    assert "| Tokens/s of SmolLM2 ÷ bare vllm serve, 8 streams (`throughput_ratio_c8`) | ≥ 0.97 | 0.99 | 0.98 |" in text
    assert "`python -m bench.gateway`, 2026-11-24, 5 rounds, a CPU, 2 cores, 24 GB, load 0.1 before the run" in text
    assert "| this gateway | 42.0 (67%) |" in text
    like_for_like, on_ray = text.split("Where ours is on Ray")
    assert "missed" not in like_for_like
    assert "| CPU per streamed token ÷ vllm-router's (`cpu_per_token_vs_router`) | ≤ 2.5 | 2 | - |" in on_ray
    assert "| Unary requests/s ÷ vllm-router's (`unary_vs_router`) | ≥ 0.5 | **0.1** (missed) | - |" in on_ray


def of_one_half(document: dict[str, Any], part: str) -> dict[str, Any]:
    """What a run writes of the mock model ("systems") or of SmolLM2 ("real") alone."""
    mock, real = (MOCK, {}) if part == "systems" else ({}, REAL)
    return document | {
        **keys(mock, real, "ours"),
        "features_on": keys(mock, real, "features"),
        "model_on_ray": {name: beside_router(mock, name) for name in ("ours", "features")},
        "systems": document["systems"] if mock else {},
        "real": document["real"] if real else {},
        "memory_mb": {f"{'real:' if real else ''}ours": {"title": part, "path": 1}},
        "command": f"python -m bench.gateway {'--no-mock' if real else '--no-real'}",
    }


@pytest.mark.parametrize(("newer", "older"), [("real", "systems"), ("systems", "real")])
def test_a_run_of_one_half_keeps_the_other_and_says_where_it_comes_from(
    document: dict[str, Any], newer: str, older: str
) -> None:
    before = of_one_half(document, older) | {"rounds": 4, "date": "2026-11-23"}
    both = completed(of_one_half(document, newer), before)
    assert {
        key: both[key] for key in (*keys(MOCK, REAL, "ours"), "features_on", "model_on_ray", "systems", "real")
    } == {key: document[key] for key in (*keys(MOCK, REAL, "ours"), "features_on", "model_on_ray", "systems", "real")}
    assert both["memory_mb"].keys() == {"ours", "real:ours"}
    text = report.markdown(both)
    half = {"real": ("SmolLM2", "--no-mock"), "systems": ("The mock model", "--no-real")}[older]
    assert f"{half[0]}: `python -m bench.gateway {half[1]}`, 2026-11-23, 4 rounds, a CPU" in text
    assert "it had 4 of 5 rounds" in text
    assert completed(of_one_half(document, newer), both)["earlier"] == both["earlier"]


@pytest.mark.parametrize(
    "other",
    [
        {"machine": {"cpu": "another", "cores": 2, "memory_gb": 24, "load_before": 0.1}},
        {"versions": {"ray": "2.61.0"}},
        {"systems": {}},
    ],
    ids=["another machine", "other versions", "nothing measured"],
)
def test_figures_that_do_not_belong_together_stay_apart(document: dict[str, Any], other: dict[str, Any]) -> None:
    run = of_one_half(document, "real")
    assert completed(run, of_one_half(document, "systems") | other) == run
    assert completed(document, of_one_half(document, "systems")) == document  # which has both


def test_a_missed_goal_is_marked(document: dict[str, Any]) -> None:
    text = report.markdown(document | {"unary_vs_router": 0.2})
    assert "| Unary requests/s ÷ vllm-router's (`unary_vs_router`) | ≥ 0.5 | **0.2** (missed) | - |" in text


def test_figures_of_a_busy_machine_or_of_few_rounds_are_marked(document: dict[str, Any]) -> None:
    assert "For their shape only" not in report.markdown(document)
    hasty = document | {"rounds": 1, "machine": document["machine"] | {"load_before": 5.6}}
    caution = "**For their shape only: the machine of this run was busy (load 5.6) and it had 1 of 5 rounds.**"
    assert caution in report.markdown(hasty)
    assert caution in report.choosing(hasty)


def test_a_system_that_was_left_out_is_named_first(document: dict[str, Any]) -> None:
    text = report.markdown(document | {"failures": {"litellm": "3 of 9 requests failed: HTTP/1.1 500"}})
    assert text.index("- **litellm was left out**: 3 of 9 requests failed: HTTP/1.1 500") < text.index("## Goals")


def test_a_table_has_as_many_columns_in_every_row(document: dict[str, Any]) -> None:
    for block in report.markdown(document).split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1, block


def test_the_picture_has_one_bar_for_every_system_that_costs_something(document: dict[str, Any]) -> None:
    root = ElementTree.fromstring(report.svg(document))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "42.0 = 2.0 x vllm-router" in texts
    assert "Ray Serve LLM <defaults>" in texts
    systems = ["vllm-router", "stock", "handle", "ours", "ours-standalone", "features-standalone"]
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == 1 + len(systems)


def test_the_page_gets_the_table_between_its_markers_and_keeps_the_rest(document: dict[str, Any]) -> None:
    page = f"# Above\n\n{report.BEGIN}\nold\n{report.END}\n\nbelow\n"
    written = report.with_table(page, document)
    assert written.startswith(f"# Above\n\n{report.BEGIN}\n| SmolLM2-135M on CPU |")
    assert written.endswith(f"\n{report.END}\n\nbelow\n")
    assert "old" not in written
    assert "| tokens/s, 8 streams | 110 | - | 109 |" in written
    assert report.with_table(written, document) == written


def test_a_page_without_markers_is_not_written(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the page has no lines '<!-- begin"):
        report.with_table("# Above\n", document)


def test_the_files_in_the_repository_are_those_of_the_json() -> None:
    """After an edit of the report: python -m bench.gateway --report."""
    found = json.loads((RESULTS / "gateway.json").read_text())
    assert (RESULTS / "gateway.md").read_text() == report.markdown(found)
    assert (RESULTS / "gateway.svg").read_text() == report.svg(found)
    page = CHOOSING.read_text()
    assert page == report.with_table(page, found)
