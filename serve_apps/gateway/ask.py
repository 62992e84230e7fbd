"""``python -m serve_apps.gateway.ask URL`` asks every model behind a gateway a real question: the chart's `helm test`.

It shows the internal credential, so it needs no API key. It waits for the gateway and for models that still start, at
most ``--within`` seconds in all, and says what it saw, one line each. Exit status: 0 every model answered; 1 one did
not, and the last lines say why; 2 wrong arguments.
"""

import argparse
import asyncio
import io
import math
import sys
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import orjson

from serve_apps.common.protocol import DEGRADED_HEADER, INTERNAL_HEADER, Task
from serve_apps.common.secrets import InternalCredential

#: Longer than a model's start from nothing, node and weights included, in seconds.
WITHIN_S = 1200
#: Between two attempts, in seconds.
PAUSE_S = 2
#: A document that was taken in is found, or taken out again, within this time, in seconds, whichever replica is asked.
FOUND_WITHIN_S = 30
#: Tokens of an answer: enough for a sentence, few enough for a CPU.
ANSWER_TOKENS = 32
#: Put into a pipeline and taken out again. Always of this name: what a killed test leaves, the next one removes.
DOCUMENT = {"id": "helm-test.txt", "text": "The keeper of the lighthouse of Zubrowka Rock is called Quillan Ashgrove."}
#: A line of a stream, in bytes; the last one of a pipeline's answer has its citations.
MAX_LINE_BYTES = 1024 * 1024
#: What a model that starts, is full or is being replaced answers.
NOT_YET = (429, 502, 503, 504)

T = TypeVar("T")


class NotYet(Exception):
    """No answer so far; the message says why. Worth another attempt."""


class Failed(Exception):
    """A wrong answer, or none in time; the message says what was wrong."""


class Gateway:
    """The gateway's API, as far as the questions need it."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def models(self) -> dict[str, Task]:
        """Every model's name and task."""
        listed = await self.json("GET", "/v1/models")
        return {model["id"]: model["task"] for model in listed["data"]}

    async def json(self, method: str, path: str, body: object = None) -> Any:
        """The body of an answer."""
        data = orjson.dumps(body) if body else None
        async with self._answer(method, path, data, {"content-type": "application/json"} if body else None) as answer:
            return orjson.loads(await answer.read())

    async def form(self, path: str, fields: dict[str, str | bytes]) -> Any:
        """The body of the answer to a form; bytes are a file."""
        form = aiohttp.FormData()
        for name, value in fields.items():
            form.add_field(name, value, filename=None if isinstance(value, str) else f"{name}.wav")
        async with self._answer("POST", path, form) as answer:
            return orjson.loads(await answer.read())

    async def chat(self, model: str, question: str) -> tuple[str, list[Any]]:
        """A streamed answer, whole, and its annotations.

        Raises:
            Failed: the stream broke off, said nothing, or the pipeline did without one of its parts.
        """
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "stream": True,
            "max_tokens": ANSWER_TOKENS,
            "temperature": 0,
        }
        text, annotations, ended = "", list[Any](), False
        headers = {"content-type": "application/json"}
        async with self._answer("POST", "/v1/chat/completions", orjson.dumps(body), headers) as answer:
            if without := answer.headers.get(DEGRADED_HEADER):
                raise Failed(f"answered without: {without}")
            async for line in answer.content:
                payload = line.strip().removeprefix(b"data: ")
                if ended := payload == b"[DONE]":
                    break
                if not line.startswith(b"data: "):
                    continue
                event = orjson.loads(payload)
                if "error" in event:
                    raise Failed(f"the answer broke off: {event['error']['message']}")
                for choice in event["choices"]:
                    delta = choice["delta"]
                    # A model that reasons may need more than these tokens to come to its answer.
                    text += delta.get("content") or delta.get("reasoning") or delta.get("reasoning_content") or ""
                    annotations += delta.get("annotations") or []
        if not ended or not text.strip():
            raise Failed("an empty answer" if ended else "the answer broke off")
        return " ".join(text.split()), annotations

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, data: bytes | aiohttp.FormData | None, headers: dict[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer with status 200."""
        try:
            async with self._session.request(method, path, data=data, headers=headers) as answer:
                if answer.status != 200:
                    raise await _refusal(answer)
                yield answer
        except aiohttp.ClientError as error:
            raise NotYet(f"{type(error).__name__}: {error}") from error


async def _refusal(answer: aiohttp.ClientResponse) -> NotYet | Failed:
    text = await answer.text(errors="replace")
    try:
        said = orjson.loads(text)["error"]["message"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        # Not the gateway's words: a proxy before it that does not know it yet.
        return NotYet(f"{answer.status} {' '.join(text.split())[:200]}")
    kind = NotYet if answer.status in NOT_YET else Failed
    return kind(f"{answer.status} {said}")


async def chat(gateway: Gateway, model: str) -> str:
    """Have a chat model answer; returns what was seen, as the other questions do."""
    text, _ = await gateway.chat(model, "What is the capital of France? Answer in one short sentence.")
    return f'"{text}"'


async def embed(gateway: Gateway, model: str) -> str:
    """Have an embedder embed two texts."""
    texts = ["Paris is the capital of France.", "Bananas are yellow."]
    answer = await gateway.json("POST", "/v1/embeddings", {"model": model, "input": texts})
    vectors = [each["embedding"] for each in answer["data"]]
    dimensions = {len(vector) for vector in vectors}
    if len(vectors) != len(texts) or len(dimensions) != 1:
        raise Failed(f"{len(texts)} texts gave {len(vectors)} vectors of {sorted(dimensions)} dimensions")
    for vector in vectors:
        if not math.isfinite(sum(vector)) or not any(vector):
            raise Failed("a vector of zeros or of no numbers")
    return f"vectors of {dimensions.pop()} dimensions"


async def score(gateway: Gateway, model: str) -> str:
    """Have a reranker compare two documents with a question."""
    documents = ["Bananas are yellow.", "Paris is the capital of France."]
    request = {"model": model, "query": "What is the capital of France?", "documents": documents}
    answer = await gateway.json("POST", "/v1/rerank", request)
    scores = [each["relevance_score"] for each in sorted(answer["results"], key=lambda each: int(each["index"]))]
    if len(scores) != len(documents) or not all(math.isfinite(each) for each in scores):
        raise Failed(f"{len(documents)} documents got the scores {scores}")
    return f"scores {', '.join(f'{each:.3f}' for each in scores)} (the second document is the right one)"


async def transcribe(gateway: Gateway, model: str) -> str:
    """Have a model write down a second of silence; hearing words in it is no fault."""
    answer = await gateway.form("/v1/audio/transcriptions", {"model": model, "file": _silence()})
    if not isinstance(answer["text"], str):
        raise Failed(f"a transcription that is no text: {answer['text']!r}")
    return f'"{answer["text"].strip()}" heard in silence'


def _silence() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(16_000)
        audio.writeframes(bytes(2 * 16_000))
    return file.getvalue()


async def pipeline(gateway: Gateway, model: str) -> str:
    """Have a pipeline answer from a document that is put in for it and taken out again."""
    documents = f"/v1/rag/{model}/documents"
    await gateway.json("POST", documents, {"documents": [DOCUMENT]})
    loop = asyncio.get_running_loop()
    try:
        return await answered(model, lambda: _cited(gateway, model), loop.time() + FOUND_WITHIN_S)
    finally:
        async with asyncio.timeout(FOUND_WITHIN_S):
            await gateway.json("DELETE", f"{documents}/{DOCUMENT['id']}")


async def _cited(gateway: Gateway, model: str) -> str:
    text, annotations = await gateway.chat(model, "Who keeps the lighthouse of Zubrowka Rock?")
    cited = [each["file_citation"]["document"] for each in annotations]
    if DOCUMENT["id"] not in cited:
        raise NotYet(f"the answer cites {', '.join(cited) or 'nothing'} and not {DOCUMENT['id']}, just taken in")
    return f'"{text}", citing {DOCUMENT["id"]}'


#: The question for each task.
QUESTIONS: dict[Task, Callable[[Gateway, str], Awaitable[str]]] = {
    "generate": chat,
    "embed": embed,
    "score": score,
    "transcribe": transcribe,
    "pipeline": pipeline,
    "agent": chat,
}


async def answered(name: str, question: Callable[[], Awaitable[T]], deadline: float) -> T:
    """What ``question`` gives; it is asked again while there is no answer, until ``deadline`` (of the event loop).

    Raises:
        Failed: the answer is wrong, or there is none in time.
    """
    loop = asyncio.get_running_loop()
    reason = "it was asked, and did not begin to answer"
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                return await question()
        except NotYet as error:
            if str(error) != reason:
                reason = str(error)
                say(f"{name}: waiting: {reason}")
        except TimeoutError:
            pass
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise Failed(f"an answer that cannot be read: {type(error).__name__}: {error}") from error
        if loop.time() + PAUSE_S >= deadline:
            raise Failed(f"no answer in time; last: {reason}")
        await asyncio.sleep(PAUSE_S)


async def ask_all(url: str, credential: InternalCredential, within_s: float) -> list[str]:
    """Ask every model at once, since the slowest to start decide; returns what failed, one line each."""
    deadline = asyncio.get_running_loop().time() + within_s
    async with aiohttp.ClientSession(
        url,
        headers={INTERNAL_HEADER: credential.value()},
        timeout=aiohttp.ClientTimeout(total=None),  # the deadline ends every attempt
        read_bufsize=MAX_LINE_BYTES,
    ) as session:
        gateway = Gateway(session)
        try:
            models = await answered("gateway", gateway.models, deadline)
        except Failed as error:
            return [f"gateway: {error}"]
        say(f"gateway: serves {', '.join(models) or 'no models'}")
        failures = await asyncio.gather(*(_ask(gateway, model, task, deadline) for model, task in models.items()))
    return [failure for failure in failures if failure]


async def _ask(gateway: Gateway, model: str, task: Task, deadline: float) -> str:
    """Ask one model; returns why it failed, or nothing."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        seen = await answered(model, lambda: QUESTIONS[task](gateway, model), deadline)
    except Failed as error:
        return f"{model}: {error}"
    say(f"{model}: {seen} ({loop.time() - began:.1f} s)")
    return ""


def say(line: str) -> None:
    """Tell whoever reads the pod's log."""
    print(line, flush=True)  # noqa: T201  # a program for the terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m serve_apps.gateway.ask", description="Ask every model a question.")
    parser.add_argument("url", help="the gateway's, for example http://llm-serving-serve-svc:8000")
    parser.add_argument("--within", type=float, default=WITHIN_S, metavar="SECONDS", help="for everything")
    given = parser.parse_args(arguments)
    try:
        failures = asyncio.run(ask_all(given.url, InternalCredential(), given.within))
    except RuntimeError as error:
        failures = [str(error)]
    for failure in failures:
        say(f"FAILED {failure}")
    if not failures:
        say("every model answered")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
