"""The playground's files as the gateway sends them, and the page in a real browser."""

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serve_apps.gateway import playground
from tests.serve_apps.gateway.browser import Browser, Page, browser  # noqa: F401  # a fixture
from tests.serve_apps.gateway.conftest import GatewayServer
from tests.serve_apps.gateway.servers import Answer, Behaviour, Upstream, until

StartUpstream = Callable[[Behaviour], tuple[Upstream, str]]
StartGateway = Callable[..., GatewayServer]

PASSAGE = "The gateway is the only way in. " * 12
CITATION = {"index": 1, "document": "guide.md", "chunk": 4, "score": 0.8312, "quote": PASSAGE[:200], "heading": "Doors"}
HOSTILE = (
    '<img src=x onerror="window.broken=1"><script>window.broken=1</script> javascript:alert(1) https://example.com/a. '
)


# The files


def test_by_default_there_is_no_page(gateway: StartGateway) -> None:
    running = gateway({})
    for path in playground.PATHS:
        answer = running.client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_path")


def test_the_page_is_sent_to_anybody_and_may_reach_nothing_but_its_gateway(gateway: StartGateway) -> None:
    running = gateway({}, playground=True)
    for path in playground.PATHS:
        answer = running.client.get(path, headers={"authorization": ""})
        assert answer.status_code == 200
        policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert {policy[kind] for kind in ("connect-src", "script-src", "style-src")} == {"'self'"}
        assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not re.search(r"(?:src|href|import|url)\W*(?:https?:)?//", answer.text)
    assert running.client.get("/v1/models", headers={"authorization": ""}).status_code == 401
    running.metrics.next_tags("llm_gateway_requests")
    assert running.metrics.values("llm_gateway_requests") == [1]


def test_the_page_can_only_be_read(gateway: StartGateway) -> None:
    running = gateway({}, playground=True)
    assert running.client.head("/").headers["content-type"] == "text/html; charset=utf-8"
    answer = running.client.post("/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


# The page in a browser


@dataclass
class Stage:
    """The page, and the upstream behind its gateway."""

    page: Page
    upstream: Upstream
    gateway: GatewayServer

    def ask(self, question: str) -> None:
        """Write a question and send it."""
        self.page.evaluate("document.querySelector('#question').focus()")
        self.page.type(question)
        self.page.press("Enter")

    def asked(self) -> list[dict[str, Any]]:
        """The chat requests that came so far."""
        return [json.loads(each.body) for each in self.upstream.received if each.path == "/v1/chat/completions"]


def delta(said: str = "", finish_reason: str | None = None, **more: Any) -> bytes:
    """An event of a chat completion stream."""
    choice = {"index": 0, "delta": {"content": said, **more}, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


async def plays(answer: Answer) -> None:
    """A model and a pipeline: what they say depends on what they are asked."""
    request = answer.upstream.received[-1]
    as_json = {"content-type": "application/json"}
    if request.path.endswith("/documents"):
        failed = {"id": "scan.pdf", "chunks": 0, "status": "failed", "error": {"message": "holds no text"}}
        reports = [{"id": "notes.md", "chunks": 3, "status": "indexed"}, failed]
        await answer.whole(207, json.dumps({"documents": reports}).encode(), as_json)
        return
    if request.path.endswith("/search"):
        await answer.whole(200, json.dumps({"results": [{**CITATION, "text": PASSAGE}]}).encode(), as_json)
        return
    question = json.loads(request.body)["messages"][-1]["content"]
    if question == "busy":
        error = {"message": "Too many requests.", "type": "rate_limit_error", "param": None, "code": "busy"}
        await answer.whole(429, json.dumps({"error": error}).encode(), as_json | {"retry-after": "7"})
        return
    if question == "down":
        await answer.whole(500, b"Traceback (most recent call last)", {"content-type": "text/plain"})
        return
    pipeline = json.loads(request.body)["model"] == "docs"
    degraded = {"x-rag-degraded": "rerank"} if pipeline else {}
    await answer.begin(200, {"content-type": "text/event-stream"} | degraded)
    if json.loads(request.body).get("include_steps"):
        called = {
            "tool": "sum",
            "arguments": {"expression": "6 * 7"},
            "result": "42",
            "failed": False,
            "duration_s": 0.5,
        }
        for step in (called, {"step": "kind", "model": "small", "result": "yes", "failed": False, "duration_s": 1.5}):
            await answer.chunk(b"data: " + json.dumps({"choices": [], "step": step}).encode() + b"\n\n")
    await answer.chunk(delta(HOSTILE if question == "hostile" else "Through the **gateway** "))
    if question == "endless":
        await answer.client_gone()
        return
    await answer.released()
    if question == "breaks":
        await answer.chunk(b'data: {"error": {"message": "The engine died."}}\n\n')
    else:
        notes = [{"type": "file_citation", "file_citation": CITATION}] if pipeline else []
        await answer.chunk(delta("only [1].") + delta("", "stop", annotations=notes))
        await answer.chunk(b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 41}}\n\n')
        await answer.chunk(b"data: [DONE]\n\n")
    await answer.chunk(b"", more=False)


@pytest.fixture
def stage(upstream: StartUpstream, gateway: StartGateway, browser: Browser) -> Iterator[Stage]:  # noqa: F811
    """The page, with a key and the model ``chat`` chosen."""
    server, url = upstream(plays)
    models = {"chat": {"url": url, "task": "generate"}, "docs": {"url": url, "task": "pipeline"}}
    models["helper"] = {"url": url, "task": "agent"}
    models["embedder"] = {"url": url, "task": "embed"}
    running = gateway(models, playground=True)
    page = browser.open(running.url)
    page.until("document.activeElement.id === 'key'")
    page.type(running.key)
    page.press("Enter")
    page.until("!document.querySelector('#model').disabled")
    page.until("document.activeElement.id === 'question'")
    yield Stage(page, server, running)
    page.close()


def test_everything_works_by_keyboard(stage: Stage, tmp_path: Path) -> None:
    page = stage.page
    offered = page.evaluate("[...document.querySelectorAll('#model option')].map((each) => each.value)")
    assert offered == ["chat", "docs", "helper"]  # an embedder chats with nobody
    page.tab_to("#model", back=True)
    page.press("d")  # the first that begins so
    page.tab_to("#files")
    page.tab_to("#question", back=True)
    page.type("How do I get in?")
    page.press("Enter")
    page.until_shown("Through the gateway")  # while the rest is not written yet
    assert page.evaluate("document.activeElement.id") == "question"
    page.tab_to("#stop")
    stage.upstream.release.set()
    page.until_shown("tokens/s")
    answer = page.text(".answer")
    for shown in ("degraded, without rerank", "first token", "total", "41 tokens", "guide.md · Doors"):
        assert shown in answer
    page.tab_to(".citation", back=True)
    page.press("Enter")
    page.until("document.querySelector('.source').open")
    page.until_shown(PASSAGE.strip(), ".source blockquote")
    assert "chunk 4, similarity 0.83" in page.text(".source")
    (asked,) = stage.asked()
    assert (asked["model"], asked["stream"]) == ("docs", True)
    assert page.problems == ["Failed to load resource: the server responded with a status of 401 (Unauthorized)"]
    screenshots(page, Path(os.environ.get("SCREENSHOTS", tmp_path)))


def screenshots(page: Page, folder: Path) -> None:
    """The page by day, by night and on a phone, where nothing may stand beyond the edge."""
    for name, width, height, dark in (
        ("light", 1100, 800, False),
        ("dark", 1100, 800, True),
        ("phone", 360, 740, False),
    ):
        page.look(width=width, height=height, dark=dark)
        page.evaluate("document.querySelector('#conversation').scrollTo(0, 1e6)")
        page.screenshot(folder / f"playground-{name}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_was_said_is_sent_along_until_a_new_chat_begins(stage: Stage) -> None:
    stage.upstream.release.set()
    for question, number in (("One?", 1), ("Two?", 2)):
        stage.ask(question)
        stage.page.until(f"document.querySelectorAll('.answer:not([aria-busy])').length === {number}")
    assert [each["role"] for each in stage.asked()[1]["messages"]] == ["user", "assistant", "user"]
    stage.page.evaluate("document.querySelector('#new').click()")
    stage.ask("Three?")
    until(lambda: len(stage.asked()) == 3)
    assert [each["content"] for each in stage.asked()[2]["messages"]] == ["Three?"]


def test_what_a_model_writes_stays_text(stage: Stage) -> None:
    page = stage.page
    stage.upstream.release.set()
    stage.ask("hostile")
    page.until_shown("tokens/s")
    assert HOSTILE.strip() in page.text(".answer > .text")
    assert page.evaluate("document.querySelectorAll('#conversation :is(img, script, iframe, style)').length") == 0
    links = page.evaluate("[...document.querySelectorAll('#conversation a')].map((a) => [a.href, a.rel])")
    assert links == [["https://example.com/a", "noopener noreferrer"]]
    assert not page.evaluate("window.broken")
    with pytest.raises(AssertionError, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<p>'")


def test_an_agents_steps_are_shown_as_they_are_done(stage: Stage) -> None:
    page = stage.page
    page.tab_to("#model", back=True)
    page.press("h")
    stage.ask("6 * 7?")
    page.until("document.querySelectorAll('.step').length === 2")
    page.until_shown("sum · 500 ms", ".steps")
    page.until_shown("kind · small · 1.5 s", ".steps")


def test_an_answer_that_is_stopped_stays_and_the_model_is_told(stage: Stage) -> None:
    page = stage.page
    stage.ask("endless")
    page.until_shown("Through the gateway")
    page.press("Escape")
    page.until_shown("Stopped.", ".failure")
    until(stage.upstream.aborted.is_set)
    assert "Through the gateway" in page.text(".answer")


@pytest.mark.parametrize(
    ("question", "shown"),
    [
        ("busy", "Too many requests. Try again in 7 s."),
        ("down", "(request "),
        ("breaks", "The engine died."),
    ],
)
def test_a_failure_is_said_in_words(stage: Stage, question: str, shown: str) -> None:
    stage.upstream.release.set()
    stage.ask(question)
    stage.page.until_shown(shown, ".answer .failure")
    assert "{" not in stage.page.text(".failure")
    stage.page.until("!document.querySelector('#send').hidden")
    kept = stage.page.evaluate("document.querySelector('#question').value")
    assert kept == ("" if question == "breaks" else question)  # what was not answered at all can be sent again


def test_a_key_that_does_not_count_is_asked_for_again(stage: Stage) -> None:
    page = stage.page
    page.tab_to("#change-key", back=True)
    page.press("Enter")
    page.until("document.activeElement.id === 'key'")
    page.type("sk-acme-0000")
    page.press("Enter")
    page.until_shown("The API key is not one of ours", "#key-problem")
    stored = "JSON.stringify([sessionStorage, localStorage, document.cookie])"
    assert page.evaluate(stored) == '[{"llm-serving.key":"sk-acme-0000"},{},""]'


def test_documents_are_uploaded_to_a_pipeline_and_to_nothing_else(stage: Stage, tmp_path: Path) -> None:
    page = stage.page
    assert page.evaluate("document.querySelector('#documents').hidden")
    page.tab_to("#model", back=True)
    page.press("d")
    page.until("!document.querySelector('#documents').hidden")
    for name in ("notes.md", "scan.pdf"):
        (tmp_path / name).write_text("Notes")
    page.choose_files("#files", tmp_path / "notes.md", tmp_path / "scan.pdf")
    page.until_shown("notes.md: indexed, 3 chunks", "#uploads")
    page.until_shown("scan.pdf: holds no text", "#uploads .failure")
    upload = stage.upstream.received[-1]
    assert (upload.method, upload.path) == ("POST", "/v1/rag/docs/documents")
    assert b'name="files"; filename="notes.md"' in upload.body
