"""``python -m tools.demo_canary``: a bad version meets the gateway, and is taken out by it.

Two models that only pretend, a good one and one that is slow and fails often, stand behind one route, 80 to 20, with
rules for the newer one. Clients ask the route all the time. All of it runs in this process, on loopback: the gateway is
the real one, and so is the client (OpenAI's).
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import logging
import math
import random
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import openai
import uvicorn

from serve_apps.common import metrics
from serve_apps.common.logging import JsonFormatter
from serve_apps.common.middleware import ASGIApp, Receive, Scope, Send
from serve_apps.common.protocol import REQUEST_ID_HEADER, VERSION_HEADER
from serve_apps.common.secrets import ApiKeys, InternalCredential
from serve_apps.gateway.auth import Authenticator
from serve_apps.gateway.config import GatewayArgs
from serve_apps.gateway.ingress import Ingress

ROUTE = "assistant"
GOOD, BAD = "good", "bad"
WEIGHTS = {GOOD: 80, BAD: 20}
#: Long enough for the bad version to be asked twenty times, and for something to happen afterwards, in seconds.
SHORTEST_S = 30
REQUESTS_PER_S = 8.0
#: Between two lines of the table, in seconds.
LINE_S = 5.0
USERS = 100
#: How long requests that are under way when the verdict falls may still be sent to the bad version, in seconds.
GRACE_S = 0.5
#: What the canary must keep.
RULES = {"maxErrorRate": 0.1, "ttftP95S": 0.5, "minRequests": 20, "windowS": 60}
WORDS = ("The", " canary", " sings", ".")


@dataclass
class Model:
    """A model that pretends: it streams four words, some time after it was asked, or fails."""

    name: str
    first_s: float
    failing: float
    """The fraction of requests it fails."""
    chance: random.Random
    asked: dict[str, str]
    """Who was asked for each request id; shared by all models."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        headers = dict(scope["headers"])
        self.asked[headers.get(REQUEST_ID_HEADER.encode(), b"").decode()] = self.name
        await asyncio.sleep(self.first_s)
        if self.chance.random() < self.failing:
            error = {"error": {"message": "out of luck", "type": "server_error", "param": None, "code": None}}
            await _begin(send, 500, "application/json")
            await send({"type": "http.response.body", "body": json.dumps(error).encode()})
            return
        await _begin(send, 200, "text/event-stream")
        for word in WORDS:
            await send({"type": "http.response.body", "body": _event(self.name, word), "more_body": True})
            await asyncio.sleep(0.02)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


class Gauges(ModuleType):
    """Stands in for ``ray.serve.metrics``, and remembers the newest value of everything."""

    def __init__(self) -> None:
        super().__init__("gauges")
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        values = self.values

        class Recorder:
            def __init__(self, name: str, **_: Any) -> None:
                self._name = name

            def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
                values[self._name, tuple((tags or {}).items())] = value

            inc = set = observe

        self.Counter = self.Gauge = self.Histogram = Recorder

    def off(self) -> Iterator[tuple[str, str]]:
        """Each version that is out of service, and the sample that says so as Prometheus would show it."""
        for (name, tags), value in self.values.items():
            if name == metrics.GATEWAY_VERSION_OFF.name and value:
                labels = ",".join(f'{label}="{tag}"' for label, tag in tags)
                yield dict(tags)["version"], f"{metrics.GATEWAY_VERSION_OFF.series}{{{labels}}} {value:g}"


@dataclass(frozen=True)
class Outcome:
    """What a caller got."""

    version: str
    """Who was asked."""
    began_s: float
    """When, in seconds since the start."""
    failed: bool
    ttft_s: float | None
    """Seconds to the first token; None if there was none."""
    said: str | None
    """What the answer says of its version (``x-llm-version``); None if it failed."""


@dataclass
class Story:
    """What happened so far."""

    outcomes: list[Outcome] = field(default_factory=list)
    out_s: float | None = None
    """When the bad version was taken out, in seconds since the start."""

    def line(self, now_s: float, since_s: float, off: Sequence[str]) -> str:
        """The table's line on what began from ``since_s`` on."""
        recent = [outcome for outcome in self.outcomes if outcome.began_s >= since_s]
        cells = [f"{now_s:4.0f} s"]
        left = sum(weight for version, weight in WEIGHTS.items() if version not in off)
        for version, weight in WEIGHTS.items():
            share = 0 if version in off else 100 * weight / left
            cells.append(
                f"{version:<4} {_summary([each for each in recent if each.version == version])} {share:4.0f} %"
            )
        return " | ".join(cells)

    def missing(self) -> list[str]:
        """What should have happened and did not; empty if the demo has shown what it is for."""
        if self.out_s is None:
            return ["the bad version was not taken out"]
        after = [outcome for outcome in self.outcomes if outcome.began_s > self.out_s + GRACE_S]
        before = [outcome for outcome in self.outcomes if outcome.began_s <= self.out_s]
        wrong = {
            "no caller met the bad version before it was taken out": not any(each.version == BAD for each in before),
            "nobody asked after the bad version was taken out": not after,
            "somebody met the bad version after it was taken out": any(each.version != GOOD for each in after),
            "somebody was harmed after the bad version was taken out": any(each.failed for each in after),
            f"an answer's {VERSION_HEADER} is not who answered": any(
                each.said not in (None, each.version) for each in self.outcomes
            ),
        }
        return [problem for problem, happened in wrong.items() if happened]


HEADER = "       | " + " | ".join(f"{'':<4} requests  errors  TTFT p95  share" for _ in WEIGHTS)


def table(urls: dict[str, str]) -> dict[str, Any]:
    """The gateway's routing table; in values, ``models`` and ``gateway.routes``."""
    return {
        "models": {name: {"url": url, "task": "generate", "runtime": "standalone"} for name, url in urls.items()},
        "routes": {
            ROUTE: {
                "versions": [{"model": name, "weight": weight} for name, weight in WEIGHTS.items()],
                "sticky": "user",
                "canary": RULES,
            }
        },
    }


async def demonstrate(seconds: float, seed: int, requests_per_s: float = REQUESTS_PER_S) -> Story:
    """Let clients ask for so many seconds, and print what happens."""
    gauges, story, asked = Gauges(), Story(), dict[str, str]()
    async with contextlib.AsyncExitStack() as stack:
        urls = {}
        for name, first_s, failing in ((GOOD, 0.05, 0.0), (BAD, 0.7, 0.3)):
            model = Model(name, first_s, failing, random.Random(seed), asked)  # noqa: S311
            urls[name] = await stack.enter_async_context(served(model, lifespan="off"))
        secrets = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ingress = _gateway(secrets, gauges)
        ingress.route_by(table(urls))
        url = await stack.enter_async_context(served(ingress, lifespan="on"))
        stack.enter_context(_events_printed())
        client = await stack.enter_async_context(
            openai.AsyncOpenAI(
                base_url=f"{url}/v1",
                api_key="not-needed",
                max_retries=0,
                http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
            )
        )
        print(f"A route of two versions, {WEIGHTS}; {BAD} is slow and fails 30 % of its requests. Rules: {RULES}\n")
        print(HEADER)
        await _ask_for(seconds, client, story, gauges, asked, random.Random(seed), requests_per_s)  # noqa: S311
    return story


async def _ask_for(
    seconds: float,
    client: openai.AsyncOpenAI,
    story: Story,
    gauges: Gauges,
    asked: dict[str, str],
    chance: random.Random,
    requests_per_s: float,
) -> None:
    start_s = time.perf_counter()
    printed_s = 0.0
    async with asyncio.TaskGroup() as group:
        for number in itertools.count():
            now_s = time.perf_counter() - start_s
            off = dict(gauges.off())
            if BAD in off and story.out_s is None:
                story.out_s = now_s
                print(f"       the metric: {off[BAD]}\n")
            if now_s >= printed_s + LINE_S or now_s >= seconds:
                print(story.line(now_s, printed_s, tuple(off)))
                printed_s = now_s
            if now_s >= seconds:
                return
            user = f"user-{chance.randrange(USERS)}"
            group.create_task(_ask(client, user, f"demo-{number}", now_s, story, asked))
            await asyncio.sleep(max(0, (number + 1) / requests_per_s - (time.perf_counter() - start_s)))


async def _ask(
    client: openai.AsyncOpenAI, user: str, request_id: str, began_s: float, story: Story, asked: dict[str, str]
) -> None:
    start_s = time.perf_counter()
    ttft_s = said = None
    failed = True
    with contextlib.suppress(openai.OpenAIError):
        raw = await client.chat.completions.with_raw_response.create(
            model=ROUTE,
            messages=[{"role": "user", "content": "What does the canary do?"}],
            user=user,
            stream=True,
            extra_headers={REQUEST_ID_HEADER: request_id},
        )
        said = raw.headers.get(VERSION_HEADER, "")
        async for _ in raw.parse():
            ttft_s = ttft_s or time.perf_counter() - start_s
        failed = False
    story.outcomes.append(Outcome(asked.get(request_id, "nobody"), began_s, failed, ttft_s, said))


def _gateway(secrets: Path, serve_metrics: ModuleType) -> Ingress:
    (secrets / "internal").write_text("of this demo alone")
    credential = InternalCredential(secrets / "internal")
    args = GatewayArgs(auth="none", audit_log=False)
    authenticator = Authenticator("none", ApiKeys(secrets), credential)
    return Ingress(args, authenticator=authenticator, credential=credential, serve_metrics=serve_metrics)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave Ctrl-C to the demo: it runs several servers."""
        yield


@contextlib.asynccontextmanager
async def served(app: ASGIApp, lifespan: str) -> AsyncIterator[str]:
    """Serve ``app`` on a free loopback port, in this event loop; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, lifespan=lifespan, log_config=None, timeout_graceful_shutdown=5)  # type: ignore[arg-type]
        server = _Server(config)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started:
            if serving.done():
                raise RuntimeError("a server of the demo did not start")
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


class _Event(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print(f"\n       the log: {self.format(record)}")


@contextlib.contextmanager
def _events_printed() -> Iterator[None]:
    """Print what the gateway logs of versions, as it stands in its log."""
    logger, handler = logging.getLogger("serve_apps.gateway.canary"), _Event()
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _summary(outcomes: Sequence[Outcome]) -> str:
    errors = sum(outcome.failed for outcome in outcomes)
    waited = sorted(outcome.ttft_s for outcome in outcomes if outcome.ttft_s is not None)
    p95 = f"{waited[math.ceil(0.95 * len(waited)) - 1]:6.2f} s" if waited else "       -"
    rate = f"{100 * errors / len(outcomes):4.0f} %" if outcomes else "     -"
    return f"{len(outcomes):8}  {rate}  {p95}"


async def _begin(send: Send, status: int, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})


def _event(model: str, word: str) -> bytes:
    choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def main() -> int:
    """Show it; 0 only if the bad version was taken out and nobody was harmed afterwards."""
    parser = argparse.ArgumentParser(prog="make demo-canary", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help=f"how long; at least {SHORTEST_S} (60)")
    parser.add_argument("--seed", type=int, default=1, help="of the users and of the bad version's failures (1)")
    options = parser.parse_args()
    if options.seconds < SHORTEST_S:
        parser.error(f"--seconds must be at least {SHORTEST_S}: the rules ask for {RULES['minRequests']} requests")
    try:
        story = asyncio.run(demonstrate(options.seconds, options.seed))
    except KeyboardInterrupt:
        return 130
    if problems := story.missing():
        print("\n" + "\n".join(f"demo-canary: {problem}" for problem in problems), file=sys.stderr)
        return 1
    after = sum(outcome.began_s > (story.out_s or 0) + GRACE_S for outcome in story.outcomes)
    print(f"\nThe gateway took {BAD} out after {story.out_s:.0f} s. Of the {after} requests after that, none failed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
