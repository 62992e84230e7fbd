"""Runs in a pod of the cluster: requests at a fixed rate, whatever becomes of them, and one JSON line about each.

Open loop: a slow answer delays no later request. Every request has a connection of its own and is never repeated, so
each one that the service drops is counted. SIGTERM ends it, once all that was sent is answered. It needs no more than
the ray-serve image has.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import time
from typing import Any

import aiohttp

URL = os.environ["URL"]
KEY = os.environ["KEY"]
#: Requests per second.
RATE = float(os.environ["RATE"])
#: Models with their tasks, asked in turn: ``chat=generate,embedder=embed``.
MODELS = [pair.split("=") for pair in os.environ["MODELS"].split(",")]
#: A request without an answer by then has failed.
TIMEOUT_S = float(os.environ["TIMEOUT_S"])
#: An end even if nobody asks for one.
LONGEST_S = float(os.environ["LONGEST_S"])


def request(model: str, task: str) -> tuple[str, dict[str, Any]]:
    """Path and body of a small request to ``model``."""
    if task == "embed":
        return "/v1/embeddings", {"model": model, "input": "a cat on a mat"}
    question = {"role": "user", "content": "Say yes."}
    return "/v1/chat/completions", {"model": model, "messages": [question], "max_tokens": 2}


async def ask(session: aiohttp.ClientSession, model: str, task: str) -> None:
    """Send one request and print what became of it."""
    path, body = request(model, task)
    outcome: dict[str, Any] = {"at": time.time(), "model": model, "status": 0, "error": ""}
    began = time.monotonic()
    try:
        async with session.post(URL + path, json=body) as answer:
            text = await answer.text()
            outcome |= {"status": answer.status, "error": "" if answer.ok else text[:500]}
    except (aiohttp.ClientError, TimeoutError) as error:
        outcome["error"] = repr(error)[:500]
    print(json.dumps(outcome | {"seconds": round(time.monotonic() - began, 4)}), flush=True)  # noqa: T201  # what load.parse reads


async def main() -> None:
    """Send requests until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with (
        aiohttp.ClientSession(
            headers={"authorization": f"Bearer {KEY}"},
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        ) as session,
        asyncio.TaskGroup() as requests,
    ):
        began = time.monotonic()
        for number, (model, task) in enumerate(itertools.cycle(MODELS)):
            wait_s = began + number / RATE - time.monotonic()
            if wait_s > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), wait_s)
            if stop.is_set() or time.monotonic() - began > LONGEST_S:
                break
            requests.create_task(ask(session, model, task))


if __name__ == "__main__":
    asyncio.run(main())
