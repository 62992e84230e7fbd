"""Secrets, read from files only: never from arguments, which end up in logs and in the Serve API.

The chart mounts Secrets under one root (``/etc/llm-serving/secrets``), one folder each; on a laptop the environment
variable ``LLM_SERVING_SECRETS`` names another root. A file that changes is read again, so a rotated Secret needs
no restart.
"""

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

DEFAULT_ROOT = "/etc/llm-serving/secrets"


def root() -> Path:
    """The folder that holds one folder per Secret."""
    return Path(os.environ.get("LLM_SERVING_SECRETS", DEFAULT_ROOT))


class InternalCredential:
    """The token that apps show each other; file ``internal/token`` under the root."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or root() / "internal" / "token"
        self._read_at_ns = -1
        self._token = ""

    def value(self) -> str:
        """The current token.

        Raises:
            RuntimeError: the file is missing or empty; an app must not start open.
        """
        try:
            changed_ns = self._path.stat().st_mtime_ns
            if changed_ns != self._read_at_ns:
                self._token = self._path.read_text().strip()
                self._read_at_ns = changed_ns
        except OSError as error:
            raise RuntimeError(f"internal credential: cannot read {self._path}: {error.strerror}") from error
        if not self._token:
            raise RuntimeError(f"internal credential: {self._path} is empty; put a random token in it")
        return self._token

    def matches(self, shown: str) -> bool:
        """Whether ``shown`` is the token, compared in constant time."""
        return hmac.compare_digest(shown.encode(), self.value().encode())


@dataclass(frozen=True)
class NewApiKey:
    """A key just made: ``key`` is for the client and is not kept; ``record`` goes into the Secret."""

    key_id: str
    key: str
    record: str


def new_api_key(key_id: str) -> NewApiKey:
    """Make an API key ``sk-<id>-<secret>`` and the salted hash that recognises it.

    The secret carries 192 random bits, so one round of SHA-256 is enough: there is nothing to guess.
    """
    key = f"sk-{key_id}-{secrets.token_hex(24)}"
    salt = secrets.token_hex(8)
    return NewApiKey(key_id, key, f"sha256:{salt}:{_digest(salt, key)}")


def _digest(salt: str, key: str) -> str:
    return hashlib.sha256(f"{salt}{key}".encode()).hexdigest()


class ApiKeys:
    """The API keys the gateway accepts: folder ``api-keys`` under the root, one file per key id.

    A file's name is the key id (also the tenant's name); its content is ``sha256:<salt>:<hex digest of salt+key>``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or root() / "api-keys"

    def identify(self, key: str) -> str | None:
        """The id of ``key``, or None if it is not one of ours. The comparison takes constant time."""
        key_id = _key_id(key)
        record = self._record(key_id) if key_id else None
        algorithm, salt, digest = (record or "sha256:none:none").split(":", 2)
        known = hmac.compare_digest(_digest(salt, key).encode(), digest.encode())
        return key_id if known and record and algorithm == "sha256" else None

    def check_readable(self) -> None:
        """Prove that keys can be looked up at all.

        Raises:
            RuntimeError: the folder is missing or closed to us; every key would look wrong.
        """
        try:
            next(self._folder.iterdir(), None)
        except OSError as error:
            raise RuntimeError(f"API keys: cannot read {self._folder}: {error.strerror}") from error

    def _record(self, key_id: str) -> str | None:
        try:
            record = (self._folder / key_id).read_text().strip()
        except (OSError, ValueError):
            return None
        return record if record.count(":") == 2 else None


def _key_id(key: str) -> str | None:
    """The id in ``sk-<id>-<secret>``; None for another shape or for an id that is not a plain file name."""
    prefix, _, rest = key.partition("-")
    key_id, _, secret = rest.rpartition("-")
    plain = key_id.replace("-", "").replace("_", "").isalnum() and key_id.isascii()
    return key_id if prefix == "sk" and secret and plain else None
