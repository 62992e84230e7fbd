from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_apps.rag import corpus
from serve_apps.rag.corpus import Corpus, Item, Source
from tests.serve_apps.bucket import Bucket
from tests.serve_apps.gateway.servers import serving

OBJECTS = {
    "docs/a.md": b"one",
    "docs/sub/b.md": b"two",
    "docs/image.png": b"x",
    "docs/lines.jsonl": b"one\ntwo\nthree\n",
}


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
    assert [one.name for one in found.unreadable] == ["b.md"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        Corpus(str(tmp_path / "nowhere"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket, by the URI of the documents in it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with serving(Bucket(OBJECTS)) as url:
        yield f"s3://bucket/docs?scheme=http&endpoint_override={url.removeprefix('http://')}&region=us-east-1"


def test_a_bucket_is_read_below_its_prefix(bucket: str) -> None:
    found = Corpus(bucket)
    items = [item for upload in found.uploads() for item in upload.items]
    assert [item for item in items if not item.is_line] == [Item("a.md", b"one"), Item("sub/b.md", b"two")]
    assert found.skipped == 1


def shared(source: str) -> list[list[str]]:
    """The documents of each share, as somebody else reads them."""
    reader = Source(source)
    shares = [list(reader.uploads(share, [])) for share in Corpus(source).shares()]
    return [[item.name for upload in share for item in upload.items] for share in shares]


def test_shares_are_about_an_upload_each(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared(str(folder)) == uploads(str(folder))
    monkeypatch.setattr(corpus, "UPLOAD_ITEMS", 1)
    assert shared(str(folder)) == [["a.jsonl, line 1", "a.jsonl, line 3"], ["b.md"], ["sub/a.TXT"]]
    monkeypatch.undo()
    monkeypatch.setattr(corpus, "UPLOAD_BYTES", 7)
    assert shared(str(folder))[-2:] == [["b.md"], ["sub/a.TXT"]]


@pytest.mark.parametrize("size", range(1, 14))
def test_each_line_of_a_file_is_in_one_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    lines = [b"1", b"22", b"", b"a line longer than most ranges", b"4", b"5"]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    monkeypatch.setattr(corpus, "RANGE_BYTES", size)
    monkeypatch.setattr(corpus, "_TAIL_BYTES", 3)
    monkeypatch.setattr(corpus, "UPLOAD_BYTES", 8)
    pieces = [piece for share in Corpus(str(tmp_path)).shares() for piece in share]
    read = [item for upload in Source(str(tmp_path)).uploads(pieces, []) for item in upload.items]
    assert [item.content for item in read] == [line for line in lines if line]
    assert [piece.is_last for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_who_begins_in_the_middle_names_a_line_by_its_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text("one\ntwo\nthree\n")
    monkeypatch.setattr(corpus, "RANGE_BYTES", 8)
    monkeypatch.setattr(corpus, "UPLOAD_BYTES", 8)
    assert shared(str(tmp_path)) == [["a.jsonl, line 1", "a.jsonl, line 2"], ["a.jsonl, byte 8"]]


def test_a_bucket_is_read_in_ranges(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "RANGE_BYTES", 8)
    monkeypatch.setattr(corpus, "UPLOAD_BYTES", 8)
    assert shared(bucket) == [
        ["a.md"],
        ["lines.jsonl, line 1", "lines.jsonl, line 2"],
        ["lines.jsonl, byte 8"],
        ["sub/b.md"],
    ]
