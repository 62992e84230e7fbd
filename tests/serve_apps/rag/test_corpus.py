import xml.sax.saxutils
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from starlette.requests import Request
from starlette.responses import Response

from serve_apps.common.middleware import Receive, Scope, Send
from serve_apps.rag import corpus
from serve_apps.rag.corpus import Corpus, Item
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


class Bucket:
    """What a client of S3 needs to list a bucket and read from it."""

    objects: ClassVar = {"docs/a.md": b"one", "docs/sub/b.md": b"two", "docs/image.png": b"x"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        await self._respond(request)(scope, receive, send)

    def _respond(self, request: Request) -> Response:
        key = request.url.path.removeprefix("/bucket").removeprefix("/")
        if "list-type" in request.query_params:
            prefix = request.query_params.get("prefix", "")
            found = {name: content for name, content in self.objects.items() if name.startswith(prefix)}
            entries = "".join(
                f"<Contents><Key>{xml.sax.saxutils.escape(name)}</Key><Size>{len(content)}</Size>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for name, content in found.items()
            )
            listing = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
            return Response(listing, media_type="application/xml")
        if key not in self.objects:
            return Response(status_code=404)
        content = self.objects[key]
        headers = {"content-length": str(len(content)), "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if request.method == "HEAD":
            return Response(headers=headers)
        return Response(content, 206 if "range" in request.headers else 200)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket, by the URI of the documents in it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with serving(Bucket()) as url:
        yield f"s3://bucket/docs?scheme=http&endpoint_override={url.removeprefix('http://')}&region=us-east-1"


def test_a_bucket_is_read_below_its_prefix(bucket: str) -> None:
    found = Corpus(bucket)
    items = [item for upload in found.uploads() for item in upload.items]
    assert items == [Item("a.md", b"one"), Item("sub/b.md", b"two")]
    assert found.skipped == 1
