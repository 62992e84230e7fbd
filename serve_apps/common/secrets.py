"""Secrets, read from files only: never from arguments, which end up in logs and in the Serve API.

The chart mounts Secrets under one root (``/etc/llm-serving/secrets``), one folder each; on a laptop the environment
variable ``LLM_SERVING_SECRETS`` names another root. A file that changes is read again, so a rotated Secret needs
no restart.
"""

import hashlib
import hmac
import logging
import math
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

logger = logging.getLogger(__name__)

DEFAULT_ROOT = "/etc/llm-serving/secrets"
#: How long what was read is good for, in seconds; a key that was taken away works that much longer.
FRESH_S = 1.0


def root() -> Path:
    """The folder that holds one folder per Secret."""
    return Path(os.environ.get("LLM_SERVING_SECRETS", DEFAULT_ROOT))


class InternalCredential:
    """The token that apps show each other; file ``internal/token`` under the root."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path or root() / "internal" / "token"
        self._clock = clock
        self._read_s = -math.inf
        self._token = ""

    def value(self) -> str:
        """The token, as it was at most ``FRESH_S`` ago.

        Raises:
            RuntimeError: the file is missing or empty; an app must not start open.
        """
        now = self._clock()
        if now - self._read_s < FRESH_S:
            return self._token
        try:
            self._token = self._path.read_text().strip()
        except OSError as error:
            raise RuntimeError(f"internal credential: cannot read {self._path}: {error.strerror}") from error
        if not self._token:
            raise RuntimeError(f"internal credential: {self._path} is empty; put a random token in it")
        self._read_s = now
        return self._token

    def matches(self, shown: str) -> bool:
        """Whether ``shown`` is the token, compared in constant time."""
        return hmac.compare_digest(shown.encode(), self.value().encode())


class UpstreamKeys:
    """What servers elsewhere are shown: one file per credential, in ``upstreams`` under the root unless given."""

    def __init__(self, folder: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder or root() / "upstreams"
        self._clock = clock
        self._read: dict[str, tuple[float, str]] = {}

    def value(self, name: str) -> str:
        """The credential in the file ``name``, at most ``FRESH_S`` old; empty if it cannot be read."""
        now = self._clock()
        read_s, key = self._read.get(name, (-FRESH_S, ""))
        if now - read_s >= FRESH_S:
            try:
                key = (self._folder / name).read_text().strip()
            except OSError as error:
                logger.error("a credential cannot be read", extra={"credential": name, "problem": error.strerror})
                key = ""
            self._read[name] = now, key
        return key


@dataclass(frozen=True)
class NewApiKey:
    """A key just made: ``key`` is for the client and is not kept; ``record`` goes into the Secret as ``key_id``."""

    key_id: str
    key: str
    record: str


def new_api_key(key_id: str, expires: date | None = None) -> NewApiKey:
    """Make an API key ``sk-<id>-<secret>`` and the salted hash that recognises it, up to the day ``expires`` (UTC).

    The secret carries 192 random bits, so one round of SHA-256 is enough: there is nothing to guess.
    """
    key = f"sk-{key_id}-{secrets.token_hex(24)}"
    salt = secrets.token_hex(8)
    record = f"sha256:{salt}:{_digest(salt, key)}"
    return NewApiKey(key_id, key, f"{record}:{expires.isoformat()}" if expires else record)


def _digest(salt: str, key: str) -> str:
    return hashlib.sha256(f"{salt}{key}".encode()).hexdigest()


#: Records held meanwhile; ids that somebody guesses must not fill the memory.
MAX_RECORDS = 10_000
#: A tenant's name, and after a dot what tells its keys apart. A file name that leads nowhere else.
_KEY_ID = re.compile(r"(?P<tenant>[A-Za-z0-9_-]+)(\.[A-Za-z0-9_-]+)?")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class ApiKeys:
    """The API keys the gateway accepts: folder ``api-keys`` under the root, one file per key.

    A file's name is the key's id: the tenant's name or, where a tenant has several keys, as while it changes from one
    to the next, ``<tenant>.<anything>``. Its content is ``sha256:<salt>:<hex digest of salt+key>``, with
    ``:<YYYY-MM-DD>`` behind it if the key is good until that day begins (UTC).
    """

    def __init__(self, folder: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder or root() / "api-keys"
        self._clock = clock
        self._records: dict[str, str] = {}
        self._recognised: dict[str, tuple[str, str]] = {}
        """Keys that were right by these records: tenant and day of expiry."""
        self._read_s = 0.0

    def identify(self, key: str) -> str | None:
        """The tenant whose key this is, or None if it is not one of ours.

        The comparison takes constant time. A key that was right is looked up, by a hash whose seed is the process' own.
        """
        self._forget_old()
        tenant, expires = self._recognised.get(key) or self._recognise(key)
        return None if self._is_over(expires) else tenant

    def check_readable(self) -> None:
        """Prove that keys can be looked up at all.

        Raises:
            RuntimeError: the folder is missing or closed to us; every key would look wrong.
        """
        try:
            next(self._folder.iterdir(), None)
        except OSError as error:
            raise RuntimeError(f"API keys: cannot read {self._folder}: {error.strerror}") from error

    def _forget_old(self) -> None:
        now = self._clock()
        if not 0 <= now - self._read_s < FRESH_S or len(self._records) >= MAX_RECORDS:
            self._records, self._recognised, self._read_s = {}, {}, now

    def _recognise(self, key: str) -> tuple[str | None, str]:
        key_id = _key_id(key)
        record = self._record(key_id[0]) if key_id else ""
        algorithm, salt, digest, expires = _fields(record)
        known = hmac.compare_digest(_digest(salt, key).encode(), digest.encode())
        if not key_id or not known or algorithm != "sha256":
            return None, ""
        self._recognised[key] = key_id[1], expires
        return self._recognised[key]

    def _record(self, key_id: str) -> str:
        record = self._records.get(key_id)
        if record is None:
            try:
                record = (self._folder / key_id).read_text().strip()
            except (OSError, ValueError):
                record = ""
            self._records[key_id] = record
        return record

    def _is_over(self, expires: str) -> bool:
        return bool(expires) and time.strftime("%Y-%m-%d", time.gmtime(self._clock())) >= expires


def _fields(record: str) -> tuple[str, str, str, str]:
    """Algorithm, salt, digest and day of expiry (or nothing); of what is no record, a hash that no key has."""
    fields = record.split(":")
    if len(fields) == 3:
        return fields[0], fields[1], fields[2], ""
    if len(fields) == 4 and _DAY.fullmatch(fields[3]):
        return fields[0], fields[1], fields[2], fields[3]
    return "none", "none", "none", ""


def _key_id(key: str) -> tuple[str, str] | None:
    """The id in ``sk-<id>-<secret>`` and its tenant; None for another shape or an id that is no plain file name."""
    prefix, _, rest = key.partition("-")
    key_id, _, secret = rest.rpartition("-")
    plain = _KEY_ID.fullmatch(key_id)
    return (key_id, plain["tenant"]) if prefix == "sk" and secret and plain else None
