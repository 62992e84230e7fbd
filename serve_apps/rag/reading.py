"""Documents are read in processes of their own: a hostile file costs such a process, and not the replica.

A process reads one document after the other. Memory and CPU time of each are bounded by the kernel (``setrlimit``), and
the time it may take by us; one that goes beyond is killed, and the next document gets another process.

It answers in JSON, has no credentials in its environment, and ends with the replica.
"""

import asyncio
import atexit
import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from serve_apps.common.errors import InvalidRequest, ServingError, TooLarge, UnsupportedMediaType
from serve_apps.rag import documents
from serve_apps.rag.sections import Section

#: What one document may take: address space in bytes, seconds of CPU time, and seconds. A large PDF takes some 100 MB,
#: and a page 10 ms.
MAX_BYTES = 1024 * 1024 * 1024
MAX_CPU_S = 120
MAX_SECONDS = 240

#: Processes at most, so that a document that takes long does not hold up all others.
PROCESSES = 2

_REFUSALS: dict[str, type[ServingError]] = {
    each.__name__: each for each in (InvalidRequest, TooLarge, UnsupportedMediaType)
}


class _Ended(Exception):
    """The process is gone, by itself or killed."""


#: A thread for each process, which is its own.
_THREADS = ThreadPoolExecutor(PROCESSES, thread_name_prefix="reading")
_OWN = threading.local()


async def read(content: bytes, content_type: str, name: str) -> list[Section]:
    """As ``documents.read``; waits for a process.

    Raises:
        TooLarge: it took more memory or time than a document may.
        ServingError: as ``documents.read`` does.
    """
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _read, content, content_type, name)


def _read(content: bytes, content_type: str, name: str) -> list[Section]:
    if not hasattr(_OWN, "reader"):
        _OWN.reader = Reader()
        atexit.register(_OWN.reader.close)
    reader: Reader = _OWN.reader
    return reader.read(content, content_type, name)


class Reader:
    """A process that reads documents, started when it is needed."""

    def __init__(
        self, max_bytes: int = MAX_BYTES, max_cpu_s: int = MAX_CPU_S, max_seconds: float = MAX_SECONDS
    ) -> None:
        """The bounds of one document, as the module's."""
        self._limits = max_bytes, max_cpu_s
        self._max_seconds = max_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, content: bytes, content_type: str, name: str) -> list[Section]:
        """As the module's; not for two threads at a time."""
        process = self._running()
        timer = threading.Timer(self._max_seconds, process.kill)
        timer.daemon = True
        timer.start()
        try:
            answer = _asked(process, {"type": content_type, "name": name, "bytes": len(content)}, content)
        except _Ended:
            self.close()
            raise TooLarge(
                f"document {name!r}: takes more memory or time to read than a document may; split it",
                code="document_too_large",
            ) from None
        finally:
            timer.cancel()
        if "refused" in answer:
            raise _REFUSALS[answer["refused"]](answer["message"], code=answer["code"])
        return [Section(text, tuple(heading), page) for text, heading, page in answer["sections"]]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            with self._process:
                self._process.wait()
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            command = [sys.executable, "-m", "serve_apps.rag.reading", *map(str, self._limits)]
            environment = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
            )
        return self._process


def _asked(process: subprocess.Popen[bytes], request: dict[str, Any], content: bytes) -> dict[str, Any]:
    requests, answers = process.stdin, process.stdout
    if requests is None or answers is None:
        raise _Ended
    try:
        requests.write(json.dumps(request).encode() + b"\n" + content)
        requests.flush()
        line = answers.readline()
    except OSError as error:
        raise _Ended from error
    if not line.endswith(b"\n"):
        raise _Ended
    answer: dict[str, Any] = json.loads(line)
    return answer


def serve(requests: BinaryIO, answers: BinaryIO, max_bytes: int, max_cpu_s: int) -> None:
    """What the process does: read what it is sent, until nobody sends any more."""
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while line := requests.readline():
        request = json.loads(line)
        content = requests.read(request["bytes"])
        # Of the process so far, and for this document: beyond it the kernel ends the process.
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + max_cpu_s + 1, resource.RLIM_INFINITY))
        answers.write(json.dumps(_answer(content, request["type"], request["name"])).encode() + b"\n")
        answers.flush()


def _answer(content: bytes, content_type: str, name: str) -> dict[str, Any]:
    try:
        sections = documents.read(content, content_type, name)
    except tuple(_REFUSALS.values()) as refusal:
        return {"refused": type(refusal).__name__, "message": refusal.message, "code": refusal.code}
    return {"sections": [(each.text, each.heading, each.page) for each in sections]}


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError, MemoryError):
        serve(sys.stdin.buffer, sys.stdout.buffer, *map(int, sys.argv[1:3]))
