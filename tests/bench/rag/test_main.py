"""A small collection through the whole program; only the embedder is the tests' own."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.rag import __main__ as program
from bench.rag import app, store
from tests.bench.rag.test_collection import written
from tests.serve_apps.gateway.servers import serving
from tests.serve_apps.rag.fake_gateway import FakeGateway

TOPICS = ("wings lift aircraft", "boats float water", "trains run rails", "bread needs yeast")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is measured, on less."""

    @contextmanager
    def embedder() -> Iterator[str]:
        with serving(FakeGateway()) as url:
            yield url

    made = store.measured
    monkeypatch.setattr("tests.serve_apps.rag.fake_gateway.TOKEN", app.TOKEN)
    monkeypatch.setattr(program, "embedder", embedder)
    monkeypatch.setattr(store, "measured", lambda chunks: made(chunks // 100) | {"chunks": chunks})
    monkeypatch.setattr(store, "SEARCHES", 5)


def test_a_collection_leads_to_three_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = [{"id": number, "title": "", "body": topic} for number, topic in enumerate(TOPICS)]
    questions = [{"query number": number, "query": topic.split()[0]} for number, topic in enumerate(TOPICS)]
    judgements = [{"query_num": number, "position": 1, "id": number} for number in range(len(TOPICS))]
    data = written(tmp_path, documents, questions, judgements)
    assert program.main([str(data), "--output", str(tmp_path / "results")]) == 0
    results = json.loads((tmp_path / "results" / "rag.json").read_text())
    assert (results["ndcg10"], results["recall100"], results["ann_recall10"]) == (1, 1, 1)
    assert (results["documents"], results["chunks"], results["questions"]) == (4, 4, 4)
    assert results["retrieval_over_embed"] >= 1
    assert results["search_p50_ms_10k"] > 0
    assert [each["chunks"] for each in results["stores"]] == [10_000, 100_000]
    assert {each["recall10"] for each in results["stores"]} == {1}
    assert all(each["search_p99_ms"] >= each["search_p50_ms"] > 0 for each in results["stores"])
    assert all(each["written_per_s"] > 0 and each["memory_mb"] >= 0 for each in results["stores"])
    assert set(results["stages"]) == {"embed", "keywords", "search", "feedback"}
    assert results["degraded"] == []
    page = (tmp_path / "results" / "rag.md").read_text()
    assert "**nDCG@10 1.0, recall@100 1.0; a retrieval takes" in page
    assert str(tmp_path) not in page
    picture = ElementTree.parse(tmp_path / "results" / "rag.svg")
    texts = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"embed", "whole"} <= texts
    assert capsys.readouterr().out.startswith("nDCG@10 1.0, recall@100 1.0; retrieval ")


def test_no_collection_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([str(tmp_path)]) == 1
    assert "it needs docs.json (id, title, body), queries.json" in capsys.readouterr().err
