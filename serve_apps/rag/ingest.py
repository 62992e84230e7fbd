"""``python -m serve_apps.rag.ingest SOURCE URL PIPELINE`` brings a folder or a bucket of documents into a pipeline.

It uploads through the gateway, several requests at a time, as any client does: so limits apply, and what is unchanged
is not embedded again. A run that was broken off is started again and goes on where it was. It shows the API key in
``LLM_SERVING_API_KEY``, or inside the cluster (``--tenant``) the internal credential. Exit status: 0 every document is
in; 1 some are not, and the log says which and why; 2 nothing could be done.
"""

import argparse
import asyncio
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from serve_apps.common.protocol import INTERNAL_HEADER, TENANT_HEADER
from serve_apps.common.secrets import InternalCredential
from serve_apps.rag.corpus import Corpus, Upload

#: Requests at a time. The gateway's replica takes 8 uploads at a time from everybody.
CONCURRENCY = 4
#: How long one upload is tried again while the service starts, is full or is being replaced, in seconds.
PATIENCE_S = 1200
#: Between two attempts, in seconds: at first, and at most.
PAUSE_S = 1.0
MAX_PAUSE_S = 30.0
#: Between two lines of progress, in seconds.
PROGRESS_S = 10.0
#: Documents whose failure is told one by one.
TOLD_FAILURES = 100

#: What another attempt may mend.
_NOT_YET = frozenset({408, 429, 500, 502, 503, 504})
#: What is wrong with a document, and not with the request for it.
_UNREADABLE = frozenset({400, 413, 415, 422})


class Refused(Exception):
    """The service takes nothing from us; the message says why."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What is brought where, and how."""

    source: str
    url: str
    pipeline: str
    tenant: str = ""
    concurrency: int = CONCURRENCY
    patience_s: float = PATIENCE_S


@dataclass
class Tally:
    """What has become of documents."""

    documents: Counter[str] = field(default_factory=Counter)
    """By status."""
    chunks: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    """Documents that are not in, and why."""

    def took(self, documents: Iterable[dict[str, Any]]) -> None:
        """Count what the service says of documents."""
        for document in documents:
            if document["status"] == "failed":
                self.failed(document["id"], document["error"]["message"])
                continue
            self.documents[document["status"]] += 1
            self.chunks += document["chunks"] if document["status"] == "indexed" else 0

    def failed(self, name: str, reason: str) -> None:
        """Count a document that is not in."""
        self.documents["failed"] += 1
        self.failures.append((name, reason))


class Progress(Tally):
    """What has become of the documents so far, and the words for it. The failures are those that were told."""

    def __init__(self, files: int = 0) -> None:
        """``files``: how many there are, where it is told of each that is done."""
        super().__init__()
        self._files = files
        self._files_done = 0
        self._began_s = time.monotonic()

    def failed(self, name: str, reason: str) -> None:
        self.documents["failed"] += 1
        if self.documents["failed"] <= TOLD_FAILURES:
            self.failures.append((name, reason))
            say(f"FAILED {name}: {reason}")
        if self.documents["failed"] == TOLD_FAILURES:
            say("further failures are only counted")

    def add(self, tally: Tally, files: int) -> None:
        """Count what became of the documents of ``files``."""
        self.documents.update({name: count for name, count in tally.documents.items() if name != "failed"})
        self.chunks += tally.chunks
        for name, reason in tally.failures:
            self.failed(name, reason)
        self._files_done += files

    def __str__(self) -> str:
        seconds = max(time.monotonic() - self._began_s, 1e-9)
        done = sum(self.documents.values())
        parts = ", ".join(f"{self.documents[status]} {status}" for status in ("indexed", "unchanged", "failed"))
        line = f"{done} documents in {seconds:.0f} s ({done / seconds:.1f}/s): {parts}; {self.chunks} chunks written"
        return f"{line}; {self._files_done} of {self._files} files" if self._files else line


class Ingestion:
    """Sends uploads to one pipeline."""

    def __init__(self, session: aiohttp.ClientSession, errand: Errand, tally: Tally) -> None:
        self._session = session
        self._path = f"/v1/rag/{errand.pipeline}/documents"
        self._patience_s = errand.patience_s
        self._tally = tally

    async def run(self, uploads: Iterator[Upload], concurrency: int) -> None:
        """Send them all, each when there is room for it.

        Raises:
            Refused: the service takes none.
        """
        slots = asyncio.Semaphore(concurrency)
        try:
            async with asyncio.TaskGroup() as group:
                await slots.acquire()
                while upload := await asyncio.to_thread(next, uploads, None):
                    group.create_task(self._send(upload)).add_done_callback(lambda _: slots.release())
                    await slots.acquire()
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _send(self, upload: Upload) -> None:
        deadline = asyncio.get_running_loop().time() + self._patience_s
        pause_s = PAUSE_S
        while True:
            status, body, retry_after_s = await self._post(upload)
            if status == 200:
                self._tally.took(body["documents"])
                return
            if status in _UNREADABLE:
                await self._unreadable(upload, body)
                return
            if status != 207 and status not in _NOT_YET:
                raise Refused(body["error"]["message"])
            pause_s = max(pause_s, retry_after_s)
            if asyncio.get_running_loop().time() + pause_s > deadline:
                self._gave_up(upload, body)
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, MAX_PAUSE_S)

    async def _unreadable(self, upload: Upload, body: dict[str, Any]) -> None:
        """One document that cannot be read keeps all of its upload out: then each is sent alone."""
        if len(upload.items) == 1:
            self._tally.failed(upload.items[0].name, body["error"]["message"])
            return
        for single in upload.alone():
            await self._send(single)

    def _gave_up(self, upload: Upload, body: dict[str, Any]) -> None:
        if "documents" in body:
            self._tally.took(body["documents"])
            return
        for item in upload.items:
            self._tally.failed(item.name, body["error"]["message"])

    async def _post(self, upload: Upload) -> tuple[int, dict[str, Any], float]:
        """The status, the body, and how long to wait before the next attempt, in seconds."""
        if upload.is_lines:
            lines = b"\n".join(item.content for item in upload.items)
            request: dict[str, Any] = {"data": lines, "headers": {"content-type": "application/jsonl"}}
        else:
            form = aiohttp.FormData(quote_fields=False)
            for item in upload.items:
                form.add_field("files", item.content, filename=item.name, content_type="application/octet-stream")
            request = {"data": form}
        try:
            async with self._session.post(self._path, **request) as response:
                content = await response.read()
                retry_after = response.headers.get("retry-after", "")
                return response.status, _body(content), float(retry_after) if retry_after.isdecimal() else 0
        except (aiohttp.ClientError, TimeoutError) as error:
            return 503, {"error": {"message": f"the gateway cannot be reached: {error}"}}, 0


def _body(content: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = None
    if isinstance(body, dict) and ("documents" in body or isinstance(body.get("error"), dict)):
        return body
    return {"error": {"message": f"an answer that cannot be read: {content[:200]!r}"}}


async def send(errand: Errand, uploads: Iterator[Upload], tally: Tally, concurrency: int) -> None:
    """Send ``uploads``, some at a time; ``tally`` counts what becomes of them.

    Raises:
        RuntimeError: there is no credential to show.
        Refused: the service takes none.
    """
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(errand.url, headers=credentials(errand.tenant), timeout=timeout) as session:
        await Ingestion(session, errand, tally).run(uploads, concurrency)


def ingest(corpus: Corpus, errand: Errand) -> Progress:
    """Bring the documents of ``corpus`` in, and say how it goes; what became of them. Raises as `send`."""
    progress = Progress()
    with telling(progress):
        asyncio.run(send(errand, corpus.uploads(), progress, errand.concurrency))
        for one in corpus.unreadable:
            progress.failed(one.name, one.reason)
    return progress


@contextmanager
def telling(progress: Progress) -> Iterator[None]:
    """Say how it goes, from time to time and at the end."""

    def tell() -> None:
        while not over.wait(PROGRESS_S):
            say(str(progress))

    over = threading.Event()
    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        say(str(progress))


def say(line: str) -> None:
    """Tell whoever reads the log."""
    print(line, flush=True)  # noqa: T201  # a program for the terminal


def credentials(tenant: str) -> dict[str, str]:
    """The headers that say who asks.

    Raises:
        RuntimeError: a tenant is named, and there is no internal credential to do that with.
    """
    if tenant:
        return {INTERNAL_HEADER: InternalCredential().value(), TENANT_HEADER: tenant}
    key = os.environ.get("LLM_SERVING_API_KEY", "")
    return {"authorization": f"Bearer {key}"} if key else {}


def arguments_of(program: str) -> argparse.ArgumentParser:
    """What a program has to be told that brings documents in."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}", description="Bring a folder or bucket of documents into a pipeline."
    )
    parser.add_argument("source", help="a folder, s3://bucket/prefix or gs://bucket/prefix")
    parser.add_argument("url", help="the gateway's, for example http://127.0.0.1:8000")
    parser.add_argument("pipeline", help="a name in rag")
    parser.add_argument("--concurrency", type=positive, default=CONCURRENCY, help="uploads at a time (%(default)s)")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE_S, metavar="SECONDS", help="with a service that is down"
    )
    parser.add_argument("--tenant", default="", help="whose documents, shown with the internal credential")
    return parser


def positive(text: str) -> int:
    """A number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1, not {text!r}")
    return int(text)


def run(given: argparse.Namespace, bring_in: Callable[[Corpus, Errand], Progress]) -> int:
    """Bring in what is ``given``; the exit status."""
    errand = Errand(given.source, given.url, given.pipeline, given.tenant, given.concurrency, given.patience)
    try:
        corpus = Corpus(errand.source)
        say(f"{corpus.files} files in {errand.source}; {corpus.skipped} of formats that are not read")
        progress = bring_in(corpus, errand)
    except (OSError, ValueError, RuntimeError, Refused) as error:
        say(f"FAILED {error}")
        return 2
    return 1 if progress.documents["failed"] else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring documents in; the exit status."""
    return run(arguments_of("serve_apps.rag.ingest").parse_args(arguments), ingest)


if __name__ == "__main__":
    sys.exit(main())
