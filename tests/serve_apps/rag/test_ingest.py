from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serve_apps.common.errors import Unavailable
from serve_apps.rag import corpus, ingest
from tests.serve_apps.rag.conftest import RagServer
from tests.serve_apps.rag.docx import docx, paragraph
from tests.serve_apps.rag.fake_gateway import TOKEN, FakeGateway, refusal
from tests.serve_apps.rag.in_memory import InMemoryStore

Run = Callable[..., int]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Documents of several kinds."""
    folder = tmp_path / "documents"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text("# One\nthe first")
    (folder / 'sub/b "ü".docx').write_bytes(docx(paragraph("the second")))
    (folder / "lines.jsonl").write_text('{"id": "c", "text": "the third", "metadata": {"lang": "en"}}\n')
    (folder / "image.png").write_bytes(b"x")
    return folder


@pytest.fixture
def server(rag: Callable[..., RagServer]) -> RagServer:
    """Where the documents go."""
    return rag()


@pytest.fixture
def run(server: RagServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the program against the app, for tenant acme; its exit status."""
    secrets = tmp_path / "secrets" / "internal"
    secrets.mkdir(parents=True)
    (secrets / "token").write_text(TOKEN)
    monkeypatch.setenv("LLM_SERVING_SECRETS", str(secrets.parent))
    monkeypatch.setattr(ingest, "PAUSE_S", 0.01)

    def main(source: Path = folder, pipeline: str = "docs", *more: str) -> int:
        return ingest.main([str(source), str(server.client.base_url).rstrip("/"), pipeline, "--tenant=acme", *more])

    return main


def listed(server: RagServer) -> list[str]:
    return [document["id"] for document in server.client.get("/v1/rag/docs/documents").json()["documents"]]


def test_a_folder_is_brought_in_and_a_second_run_changes_nothing(
    run: Run, server: RagServer, gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    assert listed(server) == ["a.md", "c", 'sub/b "ü".docx']
    told = capsys.readouterr().out
    assert "3 files in" in told
    assert "1 of formats that are not read" in told
    assert "3 indexed, 0 unchanged, 0 failed; 3 chunks written" in told
    asked = len(gateway.asked)
    assert run() == 0
    assert "0 indexed, 3 unchanged, 0 failed; 0 chunks written" in capsys.readouterr().out
    assert len(gateway.asked) == asked


def test_an_unreadable_document_is_named_and_keeps_no_other_out(
    run: Run, server: RagServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.pdf").write_bytes(b"no pdf")
    with (folder / "lines.jsonl").open("a") as lines:
        lines.write('{"id": "d"}\n')
    assert run() == 1
    assert listed(server) == ["a.md", "c", 'sub/b "ü".docx']
    told = capsys.readouterr().out
    assert "FAILED broken.pdf: document 'broken.pdf': is not a readable PDF\n" in told
    assert "FAILED lines.jsonl, line 2: line 1: text: Field required\n" in told


def test_a_service_that_starts_is_waited_for(
    run: Run, server: RagServer, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([refusal(503, "starting"), refusal(429, "full")])
    respond = gateway._respond

    async def late(request: Any) -> Any:
        return next(answers, None) or await respond(request)

    monkeypatch.setattr(gateway, "_respond", late)
    assert run() == 0
    assert len(listed(server)) == 3


def test_a_partial_failure_is_tried_again(
    run: Run, server: RagServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace = InMemoryStore.replace
    failed: list[str] = []

    async def fail_once(store: InMemoryStore, stored: Any, *rows: Any) -> None:
        if stored.id == "a.md" and not failed:
            failed.append(stored.id)
            raise Unavailable("busy")
        await replace(store, stored, *rows)

    monkeypatch.setattr(InMemoryStore, "replace", fail_once)
    assert run() == 0
    assert failed == ["a.md"]
    assert len(listed(server)) == 3
    assert "FAILED" not in capsys.readouterr().out


def test_a_service_that_stays_down_is_given_up(
    run: Run, folder: Path, gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.down["/v1/embeddings"] = refusal(503, "starting")
    assert run(folder, "docs", "--patience=0.1") == 1
    told = capsys.readouterr().out
    assert "FAILED a.md: starting\n" in told
    assert "0 indexed, 0 unchanged, 3 failed" in told


def test_a_service_that_takes_nothing_ends_the_run(run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "dosc") == 2
    assert "FAILED no such pipeline 'dosc'; there are docs" in capsys.readouterr().out


def test_a_source_that_is_not_there_ends_the_run(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nowhere") == 2
    assert "nowhere" in capsys.readouterr().out


def test_outside_the_cluster_the_api_key_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_SERVING_API_KEY", raising=False)
    assert ingest.credentials("") == {}
    monkeypatch.setenv("LLM_SERVING_API_KEY", "sk-key")
    assert ingest.credentials("") == {"authorization": "Bearer sk-key"}


def test_many_documents_go_in_several_uploads_at_a_time(
    run: Run, server: RagServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "UPLOAD_ITEMS", 10)
    for number in range(95):
        (folder / f"{number:03}.txt").write_text(f"document number {number}")
    assert run() == 0
    assert len(listed(server)) == 98


def test_what_others_counted_is_added_up_and_the_first_failures_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ingest, "TOLD_FAILURES", 2)
    progress = ingest.Progress(files=5)
    for number in range(3):
        tally = ingest.Tally()
        tally.took([{"id": "a", "status": "indexed", "chunks": 3}, {"id": "b", "status": "unchanged", "chunks": 2}])
        tally.failed(f"{number}.pdf", "broken")
        progress.add(tally, files=1)
    assert str(progress).endswith("3 indexed, 3 unchanged, 3 failed; 9 chunks written; 3 of 5 files")
    assert progress.failures == [("0.pdf", "broken"), ("1.pdf", "broken")]
    told = ["FAILED 0.pdf: broken", "FAILED 1.pdf: broken", "further failures are only counted"]
    assert capsys.readouterr().out.splitlines() == told


@pytest.mark.parametrize("given", ["0", "-1", "four"])
def test_uploads_at_a_time_are_a_number_from_one(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(folder, "docs", f"--concurrency={given}")
    assert f"--concurrency: a number from 1, not '{given}'" in capsys.readouterr().err
    assert run(folder, "docs", "--concurrency=1") == 0
