"""What stands before a vLLM server that runs without Ray: ``--middleware serve_apps.llm.standalone.StandaloneGuard``.

vLLM's own ``--api-key`` would leave /invocations, /pooling, /metrics and more open.
"""

import os
from pathlib import Path
from typing import Any

from serve_apps.common.middleware import ASGIApp, Guard, Message, Receive, Scope, Send
from serve_apps.common.protocol import TASK_PATHS
from serve_apps.common.secrets import InternalCredential

#: The environment variable with the model's task, which decides the paths it answers.
TASK_VARIABLE = "LLM_SERVING_TASK"
#: Read by the kubelet and by Prometheus, who have no credential; the network decides who else reaches them.
OPEN_PATHS = frozenset({"/health", "/metrics"})
#: There while the pod drains (`serve_apps.llm.drain`).
DRAINING = Path("/tmp/draining")  # noqa: S108  # the pod's own volume


class StandaloneGuard:
    """Lets the gateway reach the paths of the model's task, and nobody else anything but health and metrics.

    While the pod drains, each answer closes its connection: a kept one would go on bringing requests to a pod that is
    no longer in the Service.
    """

    def __init__(self, app: ASGIApp, mark: Path = DRAINING) -> None:
        """vLLM gives nothing but ``app``; ``mark`` is there while the pod drains.

        Raises:
            RuntimeError: there is no credential to ask for.
            KeyError: the environment names no task, or none there is.
        """
        credential = InternalCredential()
        credential.value()  # fail now, not at the first request
        task: Any = os.environ[TASK_VARIABLE]
        paths = TASK_PATHS[task]
        self._app = app
        self._guarded = Guard(
            app, credential=credential, allows=lambda method, path: method == "POST" and path in paths
        )
        self._mark = mark
        mark.unlink(missing_ok=True)  # of a container before this one, which its probe ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_open = scope["type"] == "http" and scope["method"] == "GET" and scope["path"] in OPEN_PATHS
        app = self._app if is_open else self._guarded
        await app(scope, receive, _closing(send) if self._mark.exists() else send)


def _closing(send: Send) -> Send:
    """``send`` that has the server close the connection after the answer."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return closing
