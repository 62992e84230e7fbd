"""A model's application as the gateway sees it, without a model: guarded, and it answers with what it was asked."""

import json
from typing import Any

from ray import serve
from ray.serve import Application

from serve_apps.common.config import Config
from serve_apps.common.middleware import ASGIApp, Guard, Receive, Scope, Send, path_below_prefix
from serve_apps.common.secrets import InternalCredential

#: Not paths of vLLM: how many generations that wait for their client to leave have begun, and were aborted.
BEGUN_PATH, ABORTED_PATH = "/begun", "/aborted"


class FakeModelArgs(Config):
    """No arguments."""


class FakeModel:
    """Answers chats with the request's headers, or with nothing until the client leaves."""

    def __init__(self) -> None:
        self._begun = self._aborted = 0

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return Guard(self._answer, credential=InternalCredential(), allows=lambda method, path: True)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
            return
        counts = {BEGUN_PATH: self._begun, ABORTED_PATH: self._aborted}
        if (path := path_below_prefix(scope)) in counts:
            await _respond(send, b"%d" % counts[path], "text/plain")
            return
        request = json.loads((await receive())["body"])
        if request.get("stream"):
            await _begin(send, "text/event-stream")
            for word in ("Paris", " is", " it"):
                await send({"type": "http.response.body", "body": _event(word), "more_body": True})
        if request.get("user") == "patient":
            self._begun += 1
            while (await receive())["type"] != "http.disconnect":
                pass
            self._aborted += 1
            return
        if request.get("stream"):
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        message = {"role": "assistant", "content": json.dumps(headers)}
        await _respond(send, _completion("chat.completion", message=message), "application/json")


def _completion(kind: str, **choice: Any) -> bytes:
    choices = [{"index": 0, "finish_reason": "stop", **choice}]
    return json.dumps({"id": "1", "object": kind, "created": 1, "model": "chat", "choices": choices}).encode()


def _event(word: str) -> bytes:
    return b"data: " + _completion("chat.completion.chunk", delta={"content": word}, finish_reason=None) + b"\n\n"


async def _begin(send: Send, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _respond(send: Send, body: bytes, content_type: str) -> None:
    await _begin(send, content_type)
    await send({"type": "http.response.body", "body": body})


def build_app(_: FakeModelArgs) -> Application:
    """The fake model, alone in its application."""
    application: Application = serve.deployment(name="FakeModel", max_ongoing_requests=64)(
        serve.ingress()(FakeModel)
    ).bind()
    return application
