"""The layers of buildah's storage, each byte for byte as the tar archive that it was made from.

buildah itself writes an image out as a whole: gigabytes, where a change of our code is one small layer. Its storage
keeps a layer as a folder and beside it a "tar-split": what the archive has between the contents of the files.
"""

import base64
import gzip
import hashlib
import json
import shutil
from pathlib import Path

from tools.images.builder import CannotBuild

#: tar-split's kinds of entries.
FILE, SEGMENT = 1, 2


def write(storage: Path, digest: str, to: Path) -> None:
    """Write the layer ``digest`` of the storage at ``storage`` as an archive.

    Raises:
        CannotBuild: the storage does not have it, or has something else than it was.
    """
    layer = _id(storage, digest)
    files = storage / "overlay" / layer / "diff"
    with gzip.open(storage / "overlay-layers" / f"{layer}.tar-split.gz") as entries, to.open("w+b") as archive:
        for entry in map(json.loads, entries):
            if entry["type"] == SEGMENT:
                archive.write(base64.b64decode(entry["payload"]))
            elif entry.get("size"):
                with (files / _name(entry)).open("rb") as file:
                    shutil.copyfileobj(file, archive)
        archive.seek(0)
        found = hashlib.file_digest(archive, "sha256").hexdigest()
    if digest != f"sha256:{found}":
        raise CannotBuild(f"the layer {digest} in {storage} has changed; remove {storage} to have it made anew")


def _id(storage: Path, digest: str) -> str:
    """The name of a layer's folder."""
    for layer in json.loads((storage / "overlay-layers" / "layers.json").read_text()):
        if layer.get("diff-digest") == digest:
            found: str = layer["id"]
            return found
    raise CannotBuild(f"{storage} has no layer {digest}")


def _name(entry: dict[str, str]) -> str:
    """A file's path in the layer; what is no UTF-8 comes encoded."""
    if raw := entry.get("name_raw"):
        return base64.b64decode(raw).decode(errors="surrogateescape")
    return entry["name"]
