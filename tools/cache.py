"""The folder for everything that is downloaded, built or converted once; it lies outside the clone."""

import os
from pathlib import Path


def cache() -> Path:
    """LLM_SERVING_CACHE, else ``llm-serving`` below the user's cache folder."""
    if chosen := os.environ.get("LLM_SERVING_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm-serving"
