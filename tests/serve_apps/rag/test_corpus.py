from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_apps.rag import corpus
from serve_apps.rag.corpus import Corpus, Item
from tests.serve_apps.bucket import Bucket
from tests.serve_apps.gateway.servers import serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Documents of several kinds, and what is none."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.md").write_text("two")
    (tmp_path / "sub" / "a.TXT").write_text("three")
    (tmp_path / "a.jsonl").write_text('{"id": "1"}\n\n{"id": "2"}')
    for other in ("image.png", ".hidden.md", "sub/noextension"):
        (tmp_path / other).write_text("x")
    return tmp_path


def uploads(source: str) -> list[list[str]]:
    return [[item.name for item in upload.items] for upload in Corpus(source).uploads()]


def test_files_are_named_by_their_path_and_lines_by_their_place(folder: Path) -> None:
    assert uploads(f"{folder}/") == [["a.jsonl, line 1", "a.jsonl, line 3"], ["b.md", "sub/a.TXT"]]
    assert uploads(folder.as_uri()) == uploads(str(folder))
    assert Corpus(str(folder)).skipped == 3


def test_an_upload_ends_at_its_bounds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "UPLOAD_ITEMS", 1)
    assert uploads(str(folder)) == [["a.jsonl, line 1"], ["a.jsonl, line 3"], ["b.md"], ["sub/a.TXT"]]
    monkeypatch.undo()
    monkeypatch.setattr(corpus, "UPLOAD_BYTES", 7)
    assert uploads(str(folder))[-2:] == [["b.md"], ["sub/a.TXT"]]
    items = [item for upload in Corpus(str(folder)).uploads() for item in upload.items]
    assert items[1] == Item("a.jsonl, line 3", b'{"id": "2"}', is_line=True)  # read in several blocks


def test_a_file_that_went_away_does_not_keep_the_others_out(folder: Path) -> None:
    found = Corpus(str(folder))
    (folder / "b.md").unlink()
    assert [item.name for upload in found.uploads() for item in upload.items][-1] == "sub/a.TXT"
    assert [name for name, _ in found.unreadable] == ["b.md"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        Corpus(str(tmp_path / "nowhere"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket, by the URI of the documents in it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with serving(Bucket({"docs/a.md": b"one", "docs/sub/b.md": b"two", "docs/image.png": b"x"})) as url:
        yield f"s3://bucket/docs?scheme=http&endpoint_override={url.removeprefix('http://')}&region=us-east-1"


def test_a_bucket_is_read_below_its_prefix(bucket: str) -> None:
    found = Corpus(bucket)
    items = [item for upload in found.uploads() for item in upload.items]
    assert items == [Item("a.md", b"one"), Item("sub/b.md", b"two")]
    assert found.skipped == 1
