"""Documents are read in processes of their own: a hostile file costs such a process, and not the replica.

A process reads one document after the other. Memory and CPU time of each are bounded by the kernel (``setrlimit``), and
the time it may take by us; one that goes beyond is killed, and the next document gets another process.

It answers in JSON, has no credentials in its environment, and ends with the replica. A document's text comes first, its
figures after it, one by one: what ends the process then costs the figures that were to come, and nothing else.

An answer stays what it is until ``content_of``: so it can be had from another replica, refusals included.
"""

import asyncio
import atexit
import base64
import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

from serve_apps.common.errors import InvalidRequest, ServingError, TooLarge, UnsupportedMediaType
from serve_apps.rag import documents, figures
from serve_apps.rag.figures import Figure
from serve_apps.rag.sections import Section

#: What one document may take: address space in bytes, seconds of CPU time, and seconds. A large PDF takes some 100 MB,
#: and a page 10 ms.
MAX_BYTES = 1024 * 1024 * 1024
MAX_CPU_S = 120
MAX_SECONDS = 240

#: Of that, what the figures may take: seconds of CPU time.
MAX_FIGURES_CPU_S = figures.MAX_SECONDS + 10

#: Processes of a replica, so that a document that takes long does not hold up all others. The chart sends a replica as
#: many documents at a time (llm-serving.readingSizing).
PROCESSES = 2

_REFUSALS: dict[str, type[ServingError]] = {
    each.__name__: each for each in (InvalidRequest, TooLarge, UnsupportedMediaType)
}


@dataclass(frozen=True, slots=True)
class Content:
    """What a document holds."""

    sections: list[Section]
    figures: list[Figure]
    """None unless they were asked for."""


#: What became of a document, as JSON.
Answer = dict[str, Any]
#: Reads a document: its bytes, its type as it was stated, its name, and whether its figures are wanted, too.
Read = Callable[[bytes, str, str, bool], Awaitable[Content]]


class _Ended(Exception):
    """The process is gone, by itself or killed."""


#: A thread for each process, which is its own.
_THREADS = ThreadPoolExecutor(PROCESSES, thread_name_prefix="reading")
_OWN = threading.local()


async def read(content: bytes, content_type: str, name: str, with_figures: bool) -> Content:
    """As ``documents.read``, and the figures of a PDF if they are wanted; waits for a process.

    Raises:
        TooLarge: it took more memory or time than a document may.
        ServingError: as ``documents.read`` does.
    """
    return content_of(await answered(content, content_type, name, with_figures))


async def answered(content: bytes, content_type: str, name: str, with_figures: bool) -> Answer:
    """What ``read`` gives, or why it does not."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _read, content, content_type, name, with_figures)


def content_of(answer: Answer) -> Content:
    """What was read.

    Raises:
        ServingError: why nothing was.
    """
    if "refused" in answer:
        raise _REFUSALS[answer["refused"]](answer["message"], code=answer["code"])
    return Content(
        [Section(text, tuple(heading), page) for text, heading, page in answer["sections"]],
        [Figure(page, media_type, base64.b64decode(file)) for page, media_type, file in answer["figures"]],
    )


def _read(content: bytes, content_type: str, name: str, with_figures: bool) -> Answer:
    if not hasattr(_OWN, "reader"):
        _OWN.reader = Reader()
        atexit.register(_OWN.reader.close)
    reader: Reader = _OWN.reader
    return reader.read(content, content_type, name, with_figures)


class Reader:
    """A process that reads documents, started when it is needed."""

    def __init__(
        self, max_bytes: int = MAX_BYTES, max_cpu_s: int = MAX_CPU_S, max_seconds: float = MAX_SECONDS
    ) -> None:
        """The bounds of one document, as the module's."""
        self._limits = max_bytes, max_cpu_s
        self._max_seconds = max_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, content: bytes, content_type: str, name: str, with_figures: bool = False) -> Answer:
        """As ``answered``; not for two threads at a time."""
        process = self._running()
        request = {"type": content_type, "name": name, "figures": with_figures, "bytes": len(content)}
        timer = threading.Timer(self._max_seconds, process.kill)
        timer.daemon = True
        timer.start()
        answer: Answer | None = None
        try:
            answer = _asked(process, request, content)
            while (figure := _line(process)) is not None:
                answer["figures"].append(figure)
        except _Ended:
            self.close()
        finally:
            timer.cancel()
        if answer is None:
            problem = f"document {name!r}: takes more memory or time to read than a document may; split it"
            return _refused(TooLarge(problem, code="document_too_large"))
        return answer

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


def _asked(process: subprocess.Popen[bytes], request: dict[str, Any], content: bytes) -> Answer:
    """The answer without its figures, which come after it."""
    if process.stdin is None:
        raise _Ended
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n" + content)
        process.stdin.flush()
    except OSError as error:
        raise _Ended from error
    answer: Answer = _line(process)
    return answer


def _line(process: subprocess.Popen[bytes]) -> Any:
    if process.stdout is None:
        raise _Ended
    try:
        line = process.stdout.readline()
    except OSError as error:
        raise _Ended from error
    if not line.endswith(b"\n"):
        raise _Ended
    return json.loads(line)


def serve(requests: BinaryIO, answers: BinaryIO, max_bytes: int, max_cpu_s: int) -> None:
    """What the process does: read what it is sent, until nobody sends any more."""
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while line := requests.readline():
        request = json.loads(line)
        content = requests.read(request["bytes"])
        _bound_cpu(max_cpu_s)
        for each in _answered(content, request, max_cpu_s):
            answers.write(json.dumps(each).encode() + b"\n")
            answers.flush()


def _bound_cpu(seconds: int) -> None:
    """Of what the process takes from now on; beyond it the kernel ends it."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds + 1, resource.RLIM_INFINITY))


def _answered(content: bytes, request: dict[str, Any], max_cpu_s: int) -> Iterator[Any]:
    """The answer without its figures, then each of these, then nothing: None."""
    content_type, name = request["type"], request["name"]
    try:
        sections = documents.read(content, content_type, name)
    except tuple(_REFUSALS.values()) as refusal:
        yield _refused(refusal)
    else:
        yield {"sections": [(each.text, each.heading, each.page) for each in sections], "figures": []}
        if request["figures"] and documents.is_pdf(content_type, name):
            _bound_cpu(min(max_cpu_s, MAX_FIGURES_CPU_S))
            for figure in figures.of_pdf(content):
                yield figure.page, figure.media_type, base64.b64encode(figure.content).decode()
    yield None


def _refused(error: ServingError) -> Answer:
    return {"refused": type(error).__name__, "message": error.message, "code": error.code}


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError, MemoryError):
        serve(sys.stdin.buffer, sys.stdout.buffer, *map(int, sys.argv[1:3]))
