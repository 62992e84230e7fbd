"""A real browser without a window, driven over the Chrome DevTools Protocol through a pair of pipes."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

#: Longer than anything takes here on a busy machine, in seconds. Reached only where a test fails.
PATIENCE_S = 60

#: Keys as the protocol names them: code, number, and the text they write.
_KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), "ArrowDown": (40, "")}


@dataclass
class Page:
    """A tab with storage of its own."""

    browser: "Browser"
    session: str
    context: str
    problems: list[str] = field(default_factory=list)
    """What the browser complained of: exceptions, refused scripts, failed loads."""

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, promises awaited.

        Raises:
            AssertionError: it threw; with what.
        """
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]["exception"].get("description")
        return done["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until an expression is true; its value."""
        deadline = time.monotonic() + PATIENCE_S
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, f"never true: {expression}\n{self.text('body')}\n{self.problems}"
            time.sleep(0.02)
        return value

    def text(self, selector: str) -> str:
        """What a person reads there."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def until_shown(self, text: str, selector: str = "body") -> None:
        """Wait until a person can read ``text`` there."""
        self.until(f"document.querySelector({json.dumps(selector)})?.innerText.includes({json.dumps(text)})")

    def type(self, text: str) -> None:
        """Write where the focus is."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key: one of those with a name, or a character."""
        number, text = _KEYS.get(key, (ord(key.upper()[0]), key))
        named = {"key": key, "windowsVirtualKeyCode": number, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **named, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def tab_to(self, selector: str, *, back: bool = False) -> None:
        """Press Tab until the focus is there."""
        for _ in range(30):
            if self.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
                return
            self.press("Tab", shift=back)
        raise AssertionError(f"Tab never leads to {selector}")

    def choose_files(self, selector: str, *files: Path) -> None:
        """Choose files in an input, as a person does in the dialog that no test can see."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def look(self, *, width: int = 1100, height: int = 800, dark: bool = False) -> None:
        """Have the window another size or colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, file: Path) -> None:
        """Write what a person sees, as a PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        """Close it; its connections end."""
        self.browser.call("Target.disposeBrowserContext", {"browserContextId": self.context})

    def call(self, method: str, **params: Any) -> Any:
        """A command of the protocol: https://chromedevtools.github.io/devtools-protocol/"""
        return self.browser.call(method, params, self.session)


class Browser:
    """A Chromium of the tests' own."""

    def __init__(self, binary: str, profile: Path) -> None:
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        options = [
            "--headless=new",
            "--no-sandbox",  # tests may run as root
            "--no-first-run",
            "--no-proxy-server",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-extensions",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
        ]
        # Chromium reads commands from descriptor 3 and writes to 4.
        script = f'exec "$@" 3<&{commands} 4>&{answers}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", binary, *options, "about:blank"],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._rest = b""
        self._last_id = 0
        self._pages: dict[str, Page] = {}

    def open(self, url: str) -> Page:
        """A new tab at ``url``, once it is loaded."""
        context = self.call("Target.createBrowserContext", {})["browserContextId"]
        target = self.call("Target.createTarget", {"url": "about:blank", "browserContextId": context})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, session, context)
        for domain in ("Page", "Runtime", "Log", "DOM"):
            page.call(f"{domain}.enable")
        page.look()
        page.call("Page.navigate", url=url)
        page.until("document.readyState === 'complete' && location.protocol !== 'about:'")
        return page

    def call(self, method: str, params: dict[str, Any], session: str | None = None) -> Any:
        """Send a command and wait for its result."""
        self._last_id += 1
        command = {"id": self._last_id, "method": method, "params": params}
        os.write(self._out, json.dumps(command | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") == self._last_id:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def close(self) -> None:
        """End it."""
        os.close(self._out)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        self._process.wait()
        os.close(self._in)

    def _note(self, message: dict[str, Any]) -> None:
        page = self._pages.get(message.get("sessionId", ""))
        if page is None:
            return
        if message["method"] == "Runtime.exceptionThrown":
            page.problems.append(str(message["params"]["exceptionDetails"]))
        elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            page.problems.append(message["params"]["entry"]["text"])

    def _read(self) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(deadline - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            piece = os.read(self._in, 1 << 20)
            assert piece, "the browser ended"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests of a module; each opens tabs of its own."""
    binary = shutil.which("chromium")
    if binary is None:
        pytest.fail("chromium is missing: make chromium, or apt-get install chromium", pytrace=False)
    started = Browser(binary, tmp_path_factory.mktemp("profile"))
    yield started
    started.close()
