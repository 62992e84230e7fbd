"""Objects: in a folder, and in what Arrow has for tests of buckets."""

from pathlib import Path

import pytest

from serve_apps.batch.storage import Storage


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return Storage(f"file://{tmp_path}/deep/below")
    bucket = Storage("mock:///bucket")
    bucket._files.create_dir("bucket/a/b")  # a bucket needs no folders, this one does
    bucket._base = "bucket"
    return bucket


def test_what_is_written_is_read_listed_replaced_and_deleted(storage: Storage) -> None:
    assert storage.read("a/b/c") is None
    assert storage.names("a/nothing") == []
    storage.write("a/b/c", b"1")
    storage.write("a/b/d", b"2")
    storage.write("a/b/c", b"3")
    assert (storage.read("a/b/c"), storage.names("a/b"), storage.names("a")) == (b"3", ["c", "d"], ["b"])
    storage.delete("a/b/c")
    storage.delete("a/b/c")
    assert storage.names("a/b") == ["d"]
    storage.delete_folder("a")
    storage.delete_folder("a")
    assert storage.read("a/b/d") is None


def test_parts_and_sizes_are_told_without_reading_all(storage: Storage) -> None:
    storage.write("one.jsonl", b"0123456789")
    storage.write("two.jsonl", b"01234")
    storage.write("a/b/c", b"01")
    assert storage.read_range("one.jsonl", 3, 4) == b"3456"
    assert storage.files(".jsonl") == {"one.jsonl": 10, "two.jsonl": 5}
    assert (storage.size("a"), storage.size("nothing")) == (2, 0)


def test_a_storage_may_be_one_object(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"01")
    storage = Storage(f"file://{tmp_path}/in.jsonl")
    assert storage.files(".jsonl") == {"": 2}
    with storage.open("") as stream:
        assert stream.read() == b"01"
    with pytest.raises(FileNotFoundError):
        Storage(f"file://{tmp_path}/nothing").files(".jsonl")


def test_an_object_in_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    storage.write("a/b", b"old")
    with pytest.raises(ValueError, match="killed"), storage.writing("a/b") as stream:
        stream.write(b"new")
        assert storage.read("a/b") == b"old"
        assert storage.names("a") == ["b"]
        raise ValueError("killed")
    assert storage.read("a/b") == b"old"
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["b"]


def test_an_object_is_not_unpacked_for_its_name(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    storage.write("part.gz", b"plain")
    assert storage.read("part.gz") == b"plain"
