"""Documents are read apart from answers: each scales by its own load."""

import itertools
import threading

import httpx

from tests.serve.conftest import Service
from tests.serve.waiting import PATIENCE_S, until
from tests.serve_apps.rag.pdf import pdf

#: A page that takes long to read, and says little.
SLOW = pdf("words) Tj (" + "q Q " * 60_000)


def test_an_upload_of_many_documents_brings_readers_and_questions_keep_their_replica(service: Service) -> None:
    def readers() -> list[int]:
        return service.cluster.live_pids("rag", "Reading")

    def upload(number: int) -> None:
        path = f"{service.root}/v1/rag/docs/documents"
        for turn in itertools.count():
            if over.is_set():
                return
            files = [("files", (f"{number}-{turn}-{each}.pdf", SLOW)) for each in range(4)]
            answers.append(httpx.post(path, files=files, headers=service.headers, timeout=PATIENCE_S).status_code)

    (first,) = until(readers, lambda seen: len(seen) == 1)
    answering = service.cluster.live_pids("rag", "Rag")
    over = threading.Event()
    answers: list[int] = []
    clients = [threading.Thread(target=upload, args=[number]) for number in range(2)]
    for client in clients:
        client.start()
    try:
        assert first in until(readers, lambda seen: len(seen) == 2)
        asked = service.chat("docs", max_tokens=2)
        assert asked.status_code == 200, asked.text
        assert service.cluster.live_pids("rag", "Rag") == answering
    finally:
        over.set()
        for client in clients:
            client.join()
    assert set(answers) == {200}
    until(readers, lambda seen: len(seen) == 1)
