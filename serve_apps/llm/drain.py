"""``python -m serve_apps.llm.drain --seconds N`` lets a vLLM server finish its requests: its pod's preStop hook.

vLLM told to end aborts what it is working on. Exit status is 0 in any case: what comes next is the end.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from urllib.error import URLError
from urllib.request import urlopen

from serve_apps.common.drain import tell
from serve_apps.llm.standalone import DRAINING

METRICS_URL = "http://127.0.0.1:8000/metrics"
#: Until every node has taken the pod out of its Service, in seconds: requests still come meanwhile.
UNLISTED_S = 5.0
POLL_S = 1.0
TIMEOUT_S = 5.0

_UNDER_WAY = re.compile(r"^vllm:num_requests_(?:running|waiting)(?:\{[^}]*\})? (\S+)", re.MULTILINE)


def under_way(metrics: str) -> int:
    """The requests that vLLM works on or holds, of its metrics in Prometheus' text format."""
    return int(sum(float(value) for value in _UNDER_WAY.findall(metrics)))


def read_metrics() -> str | None:
    """The server's metrics; None if it does not answer any more, and there is nothing to wait for."""
    try:
        with urlopen(METRICS_URL, timeout=TIMEOUT_S) as answer:
            text: str = answer.read().decode()
            return text
    except TimeoutError:
        return "vllm:num_requests_running 1"  # too busy to say
    except (URLError, OSError):
        return None


def drain(
    seconds: float,
    read: Callable[[], str | None] = read_metrics,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Wait until nothing is under way, at most ``seconds``; what ended the wait, in words."""
    began = clock()
    sleep(min(UNLISTED_S, seconds))
    while (text := read()) is not None:
        if not (left := under_way(text)):
            return "drained"
        if clock() - began >= seconds:
            return f"{left} requests left after {seconds:.0f} s"
        sleep(POLL_S)
    return "the server is gone"


def main(arguments: Sequence[str] | None = None) -> int:
    """Drain this pod's server."""
    parser = argparse.ArgumentParser(description="Let this pod's vLLM server finish its requests.")
    parser.add_argument("--seconds", type=int, required=True, help="at most")
    seconds: int = parser.parse_args(arguments).seconds
    DRAINING.touch()
    tell(f"preStop: {drain(seconds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
