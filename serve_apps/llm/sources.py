"""Where weights are, as vLLM and ray.serve.llm want to hear it. Pure."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import PurePosixPath

#: Where the chart mounts claims (``pvc://``) and images (``oci://``); LLM_SERVING_MODELS names another on a laptop.
DEFAULT_MODELS_ROOT = "/mnt/models"


@dataclass(frozen=True)
class Weights:
    """A source resolved: ``location`` is a Hub id, a bucket URI or a folder; ``revision`` is the Hub's, if pinned."""

    location: str
    revision: str | None = None


def resolve(source: str, models_root: str | None = None) -> Weights:
    """Where ``hf://org/name[@revision]``, ``s3://…``, ``gs://…``, ``pvc://claim/path`` or ``oci://image[#path]`` leads.

    Raises:
        ValueError: an unknown scheme, or a path that leaves its claim or image.
    """
    scheme, _, rest = source.partition("://")
    if scheme == "hf":
        location, _, revision = rest.partition("@")
        return Weights(location, revision or None)
    if scheme in ("s3", "gs"):
        return Weights(source)
    root = models_root or default_models_root()
    if scheme == "pvc":
        if not _stays_below(rest):
            raise ValueError(f"source: {source!r} leaves its claim; write pvc://claim/path")
        return Weights(str(PurePosixPath(root, rest)))
    if scheme == "oci":
        image, _, path = rest.partition("#")
        if not _stays_below(path):
            raise ValueError(f"source: {source!r} leaves its image; write oci://registry/name:tag#path")
        return Weights(str(PurePosixPath(root, image_folder(image), path)))
    raise ValueError(f"source: {source!r} has an unknown scheme; one of: hf://, s3://, gs://, pvc://, oci://")


def default_models_root() -> str:
    """The folder below which claims and images are mounted here."""
    return os.environ.get("LLM_SERVING_MODELS", DEFAULT_MODELS_ROOT)


def image_folder(reference: str) -> str:
    """The folder that the chart mounts an image at, by the same rule: a reference has colons, and no mount may."""
    return f"image-{hashlib.sha256(reference.encode()).hexdigest()[:10]}"


def _stays_below(path: str) -> bool:
    return not path.startswith("/") and ".." not in PurePosixPath(path).parts
