"""Programs that stay: what each has to read and make ready before it can answer is paid for once, not for each test."""

import atexit
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path


class Resident:
    """A program that answers each request on its stdin with one line on its stdout; it ends with this process."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        """``command`` starts it."""
        self._command = command
        self._one_at_a_time = threading.Lock()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", errors="strict"
        )
        atexit.register(self._end)

    def ask(self, request: str) -> str:
        """The line that answers ``request``, without its end.

        Raises:
            RuntimeError: The program has ended.
        """
        asked, answered = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answered is not None
        with self._one_at_a_time:
            asked.write(request)
            asked.flush()
            line = answered.readline()
        if not line.endswith("\n"):
            raise RuntimeError(f"{self._command[0]} has ended, with exit {self._process.wait()}")
        return line.removesuffix("\n")

    def _end(self) -> None:
        self._process.communicate()
