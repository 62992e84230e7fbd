from pathlib import Path

from serve_apps.batch.answering import Answer, answered
from serve_apps.batch.parts import Parts
from serve_apps.batch.storage import Storage
from serve_apps.common.gateway_client import Reply


def answer(custom_id: str, status: int = 200) -> Answer:
    return answered(custom_id, "id", Reply(status, b"{}"))


def test_what_stands_in_two_parts_counts_once_and_output_before_errors(tmp_path: Path) -> None:
    parts = Parts(Storage(f"file://{tmp_path}"), "parts")
    parts.write([answer("a"), answer("b", 500)])
    parts.write([answer("a"), answer("b"), answer("c", 400)])
    seen: set[str] = set()
    assert len(list(parts.records("output", seen))) == 2
    assert seen == {"a", "b"}
    assert [b'"c"' in record for record in parts.records("errors", seen)] == [True]
    parts.delete()
    assert list(parts.records("output", set())) == []
