"""``make demo``: serve the RAG preset on this machine, read the project's own docs into it, and ask a question."""

import argparse
import json
import secrets
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import psutil

from serve_apps.common.secrets import new_api_key
from tools.demo.cluster import DeployFailed, LocalCluster, Progress
from tools.demo.models import models_root
from tools.demo.rendered import REPOSITORY, RenderedService, helm_template, ray_service
from tools.gotools import ToolUnavailable, helm

DEFAULT_QUESTION = "Which component is the only way in?"
PIPELINE = "docs"
#: Two engines of four processes each, Ray and the pipelines, measured at 10 GB; with less the kernel would kill one.
NEEDED_MEMORY_GB = 11
READY_TIMEOUT_S = 600


class CannotRun(Exception):
    """This machine or these arguments cannot run the demo; the message says what to do."""


def main() -> int:
    """Run the demo; the exit code."""
    arguments = _arguments()
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a closed terminal must not leave Ray behind
        signal.signal(ending, _interrupt)
    try:
        run(arguments)
    except (CannotRun, DeployFailed, ToolUnavailable, ValueError, httpx.HTTPError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 0 if arguments.stays else 130
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--ask", default=DEFAULT_QUESTION, help="the question (ASK=…)")
    parser.add_argument("--exit", dest="stays", action="store_false", help="answer, then stop (EXIT=1)")
    parser.add_argument("--port", type=int, default=8000, help="the gateway's port (PORT=…)")
    parser.add_argument("--file", type=Path, default=REPOSITORY / "values" / "rag.yaml", help="the preset (FILE=…)")
    return parser.parse_args()


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(arguments: argparse.Namespace) -> None:
    """Check the machine, render, serve, ingest, ask; then stay up or stop."""
    check_machine(arguments.port)
    service = render(arguments.file, arguments.port)
    with tempfile.TemporaryDirectory(prefix="llms-demo-") as scratch:
        key = write_secrets(Path(scratch) / "secrets")
        environment = {
            **service.environment,
            "LLM_SERVING_SECRETS": str(Path(scratch) / "secrets"),
            "LLM_SERVING_MODELS": str(models_root()),
            "LLM_SERVING_DATA": scratch,
        }
        cluster = LocalCluster(environment, service.labels)
        say(f"starting Ray and {', '.join(service.application_names)}; logs in {cluster.folder}")
        with cluster:
            cluster.deploy(service.serve_config)
            cluster.wait(service.application_names, READY_TIMEOUT_S, Reporter())
            client = httpx.Client(
                base_url=f"http://127.0.0.1:{service.port}",
                headers={"authorization": f"Bearer {key}"},
                timeout=READY_TIMEOUT_S,
            )
            published = {model["id"] for model in client.get("/v1/models").raise_for_status().json()["data"]}
            if PIPELINE in published:
                ingest(client, PIPELINE)
            asked = [PIPELINE] if PIPELINE in published else service.answering_models[:1]
            for model in asked:
                ask(client, model, arguments.ask)
            if arguments.stays:
                print_handout(service.port, key, published, asked, cluster.metrics_url)
                signal.pause()


def check_machine(port: int) -> None:
    """Refuse early, in one line, what would fail late.

    Raises:
        CannotRun: the port is taken or memory is short.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CannotRun(f"port {port} is taken; choose another: make demo PORT={port + 100}") from error
    available_gb = psutil.virtual_memory().available / 1e9
    if available_gb < NEEDED_MEMORY_GB:
        raise CannotRun(f"{available_gb:.1f} GB of memory are free, {NEEDED_MEMORY_GB} GB are needed; close something")


def render(preset: Path, port: int) -> RenderedService:
    """The preset on the environment ``local``, rendered by Helm.

    Raises:
        ValueError: the values are wrong; the message is Helm's.
    """
    if not preset.is_file():
        raise CannotRun(f"no such preset: {preset}; see values/README.md")
    files = [preset, REPOSITORY / "values" / "environments" / "local.yaml"]
    return ray_service(helm_template(helm(), files, [f"gateway.port={port}"]))


def write_secrets(folder: Path) -> str:
    """Make this run's credentials where the apps look for them; the API key of the demo's user."""
    key = new_api_key("demo")
    for name, content in {"internal/token": secrets.token_hex(32), f"api-keys/{key.key_id}": key.record}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return key.key


def ingest(client: httpx.Client, pipeline: str) -> None:
    """Put the project's own documents into the pipeline."""
    documents = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    files = [("files", (str(path.relative_to(REPOSITORY)), path.read_bytes(), "text/markdown")) for path in documents]
    answer = client.post(f"/v1/rag/{pipeline}/documents", files=files)
    if not answer.is_success:
        raise DeployFailed(f"the documents were refused: {answer.text}")
    chunks = sum(document["chunks"] for document in answer.json()["documents"])
    say(f"read {len(files)} documents ({chunks} chunks) into the pipeline {pipeline!r}")


def ask(client: httpx.Client, model: str, question: str) -> None:
    """Ask with streaming, print the answer as it comes and then its citations.

    Raises:
        DeployFailed: the gateway answered with an error.
    """
    print(f"\nQ: {question}\nA: ", end="", flush=True)
    body = {"model": model, "messages": [{"role": "user", "content": question}], "stream": True}
    citations: list[dict[str, Any]] = []
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        if not answer.is_success:
            raise DeployFailed(f"the question was refused: {answer.read().decode()}")
        for event in server_sent_events(answer):
            if "error" in event:
                raise DeployFailed(f"the answer broke off: {event['error']['message']}")
            for choice in event["choices"]:
                print(choice["delta"].get("content") or "", end="", flush=True)
                citations += [note["file_citation"] for note in choice["delta"].get("annotations") or []]
    print("\n\nSources:" if citations else "\n")
    for citation in citations:
        score = "found by words" if citation["score"] is None else f"{citation['score']:.2f}"
        print(f"  [{citation['index']}] {citation['document']} (chunk {citation['chunk']}, {score})")
    print(flush=True)


def server_sent_events(answer: httpx.Response) -> Any:
    """The JSON events of an OpenAI stream, without the final ``[DONE]``."""
    for line in answer.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def print_handout(port: int, key: str, models: set[str], asked: list[str], metrics_url: str) -> None:
    """What a person needs to go on by hand."""
    print(f"URL: http://127.0.0.1:{port}/v1\nKey: {key}\nModels: {', '.join(sorted(models))}\nMetrics: {metrics_url}")
    print(f"Playground: http://127.0.0.1:{port}/ (takes the key)\n")
    for model in asked:
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": DEFAULT_QUESTION}]})
        print(
            f"curl http://127.0.0.1:{port}/v1/chat/completions -H 'Authorization: Bearer {key}' \\\n"
            f"  -H 'Content-Type: application/json' -d '{body}'\n"
        )
    print("Ctrl-C stops it.", flush=True)


class Reporter:
    """Prints one line whenever an application's status changes, with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown: dict[str, str] = {}

    def __call__(self, progress: Progress) -> None:
        for name, status in progress.statuses.items():
            if self._shown.get(name) != status:
                say(f"{time.monotonic() - self._began:4.0f} s  {name}: {status.lower().replace('_', ' ')}")
        self._shown = dict(progress.statuses)


def say(text: str) -> None:
    """A line of progress, on stderr so that stdout holds only the answer."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
