import json
from pathlib import Path
from typing import Any

import pytest

from bench.rag.collection import CollectionError, read

DOCUMENTS = [
    {"id": 1, "title": "Wings & <flaps>", "body": "First.\n\nSecond."},
    {"id": 2, "title": "", "body": "No title."},
    {"id": 3, "title": " ", "body": ""},
]
QUESTIONS = [{"query number": 1, "query": "which wings"}, {"query number": 2, "query": "unanswered"}]
JUDGEMENTS = [
    {"query_num": "1", "position": 4, "id": "1"},
    {"query_num": "1", "position": 5, "id": "2"},
    {"query_num": "2", "position": 5, "id": "2"},
]


def written(folder: Path, documents: Any = DOCUMENTS, questions: Any = QUESTIONS, judgements: Any = JUDGEMENTS) -> Path:
    for name, content in {"docs": documents, "queries": questions, "qrels": judgements}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_documents_are_html_and_questions_have_an_answer(tmp_path: Path) -> None:
    collection = read(written(tmp_path))
    assert collection.documents == {
        "1": "<h1>Wings &amp; &lt;flaps&gt;</h1><p>First.</p><p>Second.</p>",
        "2": "<h1></h1><p>No title.</p>",
    }
    assert collection.questions == {"1": "which wings"}
    assert collection.relevant == {"1": frozenset({"1"})}


@pytest.mark.parametrize("broken", [{"documents": [{}]}, {"questions": {}}, {"judgements": [{"query_num": 1}]}])
def test_another_format_is_refused(tmp_path: Path, broken: dict[str, Any]) -> None:
    with pytest.raises(CollectionError, match=r"not a collection like Cranfield's|no question has a relevant"):
        read(written(tmp_path, **broken))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "qrels.json").unlink()
    with pytest.raises(CollectionError, match=r"qrels\.json"):
        read(tmp_path)
