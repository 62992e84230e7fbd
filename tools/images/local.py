"""Images without a daemon and without a registry: buildah as root, with storage of its own in the cache.

Layers stay, so a change costs what comes after it in the Dockerfile, and no change a second. What a change leaves
behind is removed after it.
"""

import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from tools.cache import alone, cache
from tools.images import layers
from tools.images.debian import Base
from tools.images.image import IMAGES, RECIPES, REPOSITORY, Image
from tools.images.program import run

#: What of pip's configuration on this machine says where packages come from.
INDEX_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "proxy")
#: The stage of a Dockerfile that has all but our code.
RUNTIME = "runtime"
#: The kind of manifest that buildah makes in Docker's format.
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
#: Where Debian's programs look for certificates.
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def build(name: str) -> str:
    """Build the image ``name`` of ``IMAGES``, or find it built; its id, 64 hexadecimal digits.

    Raises:
        CannotBuild: a program is missing, or the build failed; the message says where its log is.
    """
    image = IMAGES[name]
    # A build's cleaning would take another's layers.
    with alone(_storage() / "lock", "another build of images"):
        base = _base()
        before = _built(image.full_reference)
        # buildah's own look for what changed reads every layer, half a minute for the largest image.
        note, current = _storage() / f"{name}.built", f"{image.digest(base)} {before}"
        if note.exists() and note.read_text() == current and before:
            return before
        started = time.monotonic()
        print(f"images: {name}, {'brought up to date' if before else 'built anew'} …", file=sys.stderr, flush=True)
        runtime = _runtime(image, base, name)
        made = _make(image, base, name, image.full_reference, *runtime)
        if made != before:
            for stage in set(stages(image)) - {RUNTIME}:
                # By name, so that the next build finds their layers after the cleaning.
                _make(image, base, name, f"localhost/stages/{name}:{stage}", "--target", stage)
            _clean()
        note.write_text(f"{image.digest(base)} {made}")
        print(f"images: {name} {made[:12]} after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return made


def export(name: str, archive: Path, held: Collection[str] = ()) -> None:
    """Build the image ``name`` and write it as an OCI archive, which containerd imports under the name pods use.

    Layers whose digests are in ``held`` are left out: who imports the archive has them.

    Raises:
        CannotBuild: a program is missing or failed.
    """
    made = build(name)
    parts = json.loads(_buildah("inspect", "--type", "image", made, log="inspect"))
    manifest, config = parts["Manifest"].encode(), parts["Config"].encode()
    layers_ = [layer["digest"] for layer in json.loads(manifest)["layers"]]
    named = {"io.containerd.image.name": IMAGES[name].full_reference}
    described = {"mediaType": MANIFEST, "digest": _digest(manifest), "size": len(manifest), "annotations": named}
    with tempfile.TemporaryDirectory(dir=_storage()) as scratch, tarfile.open(archive, "w") as written:
        layout = Path(scratch)
        (layout / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
        (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
        blobs = layout / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for blob in (manifest, config):
            (blobs / _digest(blob).removeprefix("sha256:")).write_bytes(blob)
        written.add(layout, "")
        for digest in dict.fromkeys(layers_):
            if digest not in held:
                layer = blobs / digest.removeprefix("sha256:")
                layers.write(_storage() / "root", digest, layer)
                written.add(layer, str(layer.relative_to(layout)))
                layer.unlink()  # gigabytes, and the disk may have no room for them twice


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def stages(image: Image) -> list[str]:
    """The names of the stages before the final one."""
    return re.findall(r"(?m)^FROM .+ AS ([a-z]+)$", (REPOSITORY / image.folder / "Dockerfile").read_text())


def _base() -> str:
    """The reference of the base image, made if it is not in the storage."""
    base = Base()
    if not _built(base.reference):
        print("images: the Debian base (about a minute, once) …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=_storage()) as scratch:
            base.write(Path(scratch), _storage() / "base.log")
            options = ("--isolation", "chroot", "--format", "docker", "--tag", base.reference)
            _buildah("build", *options, scratch, log="base-image")
    return base.reference


def _runtime(image: Image, base: str, name: str) -> list[str]:
    """What has a build begin with the stage ``runtime`` as it is, if the image has one: buildah would copy it anew.

    It is made where something has changed that decides it.
    """
    if RUNTIME not in stages(image):
        return []
    tag, note = f"localhost/stages/{name}:{RUNTIME}", _storage() / f"{name}.{RUNTIME}"
    digest = image.digest(base, RECIPES)
    if not note.exists() or note.read_text() != f"{digest} {_built(tag)}":
        made = _make(image, base, name, tag, "--target", RUNTIME)
        note.write_text(f"{digest} {made}")
    return ["--build-context", f"{RUNTIME}=container-image://{tag}"]


def _make(image: Image, base: str, name: str, tag: str, *options: str) -> str:
    """Run the Dockerfile of ``image``; the id of what was made and tagged."""
    with tempfile.TemporaryDirectory(dir=_storage()) as scratch:
        index = Path(scratch) / "pip.conf"
        index.write_text(pip_conf(_pip_settings()))
        made = Path(scratch) / "id"
        # fmt: off
        arguments = [
            "build", "--layers", "--format", "docker", "--isolation", "chroot", "--network", "host",
            "--secret", f"id=pip.conf,src={index}",
            "--volume", f"{_certificates()}:{CERTIFICATES}:ro",
            "--iidfile", str(made), "--tag", tag, *options, *image.arguments(base),
        ]
        # fmt: on
        _buildah(*arguments, log=name)
        return made.read_text().strip().removeprefix("sha256:")


def pip_conf(settings: str) -> str:
    """A pip.conf with the package index of ``settings``, which is what ``pip config list`` prints.

    The environment comes first there, and wins.
    """
    found: dict[str, str] = {}
    for key, value in re.findall(r"(?m)^\S+\.([a-z-]+)='(.*)'$", settings):
        if key in INDEX_OPTIONS:
            found.setdefault(key, value)
    return "\n".join(["[global]", *(f"{key} = {value}" for key, value in found.items()), ""])


def _pip_settings() -> str:
    """Whatever pip is told on this machine, by its files and by the environment."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _certificates() -> str:
    """The file of the authorities this machine trusts: a mirror may be signed by one of its own."""
    found = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    return found if found and Path(found).is_file() else CERTIFICATES


def _clean() -> None:
    """Remove what has no name: layers of earlier builds, and first the containers of builds that were cut short."""
    _buildah("rm", "--all", log="clean")
    _buildah("rmi", "--prune", log="clean")


def _built(tag: str) -> str | None:
    """The id of the image of that name in the storage."""
    printed = _buildah("images", "--quiet", "--no-trunc", "--filter", f"reference={tag}", log="images")
    found = re.search(r"(?m)^sha256:([0-9a-f]{64})$", printed)
    return found[1] if found else None


def _buildah(*arguments: str, log: str) -> str:
    """Run buildah on our storage, in the repository; what it printed, which is kept in the log of that name.

    Raises:
        CannotBuild: it is missing or failed.
    """
    root, state = _storage() / "root", _storage() / "run"
    command = ["buildah", "--root", str(root), "--runroot", str(state), "--storage-driver", "overlay", *arguments]
    return run(command, folder=REPOSITORY, log=_storage() / f"{log}.log")


def _storage() -> Path:
    """Where everything lies."""
    folder = cache() / "buildah"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
