"""Where weights are, as vLLM and ray.serve.llm want to hear it. Pure."""

import os
from dataclasses import dataclass
from pathlib import PurePosixPath

#: Where the chart mounts the claims of ``pvc://`` sources; LLM_SERVING_MODELS names another folder on a laptop.
DEFAULT_MODELS_ROOT = "/mnt/models"


@dataclass(frozen=True)
class Weights:
    """A source resolved: ``location`` is a Hub id, a bucket URI or a folder; ``revision`` is the Hub's, if pinned."""

    location: str
    revision: str | None = None


def resolve(source: str, models_root: str | None = None) -> Weights:
    """Turn ``hf://org/name[@revision]``, ``s3://…``, ``gs://…`` or ``pvc://claim/path`` into what is loaded.

    Raises:
        ValueError: an unknown scheme, or a path that leaves its claim.
    """
    scheme, _, rest = source.partition("://")
    if scheme == "hf":
        location, _, revision = rest.partition("@")
        return Weights(location, revision or None)
    if scheme in ("s3", "gs"):
        return Weights(source)
    if scheme == "pvc":
        path = PurePosixPath(rest)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"source: {source!r} leaves its claim; write pvc://claim/path")
        root = models_root or os.environ.get("LLM_SERVING_MODELS", DEFAULT_MODELS_ROOT)
        return Weights(str(PurePosixPath(root) / path))
    raise ValueError(f"source: {source!r} has an unknown scheme; one of: hf://, s3://, gs://, pvc://")
