import base64
import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from tools.images import layers
from tools.images.builder import CannotBuild

#: A layer's files; one name is no UTF-8, one file is empty.
FILES = {"etc/motd": b"hello\n", "etc/empty": b"", "caf\udce9": b"x" * 2000}


def digest(archive: bytes) -> str:
    return f"sha256:{hashlib.sha256(archive).hexdigest()}"


@pytest.fixture
def archive() -> bytes:
    """The archive that a layer was made from."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", errors="surrogateescape") as tar:
        for name, content in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return written.getvalue()


@pytest.fixture
def storage(tmp_path: Path, archive: bytes) -> Path:
    """A storage that has the layer beside another, as containers/storage keeps it."""
    index = tmp_path / "overlay-layers"
    index.mkdir()
    (index / "layers.json").write_text(json.dumps([{"id": "base"}, {"id": "ours", "diff-digest": digest(archive)}]))
    entries, written = [], 0
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as tar:
        for entry in tar:
            entries.append({"type": 2, "payload": base64.b64encode(archive[written : entry.offset_data]).decode()})
            raw = base64.b64encode(entry.name.encode(errors="surrogateescape")).decode()
            named = {"name": entry.name} if entry.name.isascii() else {"name_raw": raw}
            entries.append({"type": 1, **named, **({"size": entry.size} if entry.size else {})})
            written = entry.offset_data + entry.size
    entries.append({"type": 2, "payload": base64.b64encode(archive[written:]).decode()})
    with gzip.open(index / "ours.tar-split.gz", "wt") as split:
        split.writelines(json.dumps(entry) + "\n" for entry in entries)
    for name, content in FILES.items():
        file = tmp_path / "overlay" / "ours" / "diff" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path


def test_a_layer_is_written_byte_for_byte(storage: Path, archive: bytes, tmp_path: Path) -> None:
    layers.write(storage, digest(archive), tmp_path / "layer.tar")
    assert (tmp_path / "layer.tar").read_bytes() == archive


def test_a_layer_whose_files_have_changed_is_refused(storage: Path, archive: bytes, tmp_path: Path) -> None:
    (storage / "overlay" / "ours" / "diff" / "etc" / "motd").write_text("Hello\n")
    with pytest.raises(CannotBuild, match="has changed"):
        layers.write(storage, digest(archive), tmp_path / "layer.tar")


def test_a_layer_that_is_not_there_is_refused(storage: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotBuild, match="has no layer sha256:0"):
        layers.write(storage, "sha256:0", tmp_path / "layer.tar")
