"""How many tokens texts have for an embedder.

vLLM counts one text a request (`/tokenize`), and a document has thousands of sentences. So many are sent as one, with a
mark between them that no text has; in the answer, the mark's own tokens show where each text ends. Tokenizers do not
join what white space keeps apart, so the counts are those of the texts in their place.

An embedder that cannot count, as other providers', is guessed at: ``estimate`` is above what tokenizers make of almost
any text, so chunks come out smaller there, and none is cut by the embedder.
"""

import asyncio
import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from serve_apps.common.errors import InvalidRequest, UpstreamFailed
from serve_apps.common.gateway_client import Caller
from serve_apps.rag.concurrency import gathered
from serve_apps.rag.gateway_client import GatewayClient

#: Letters that no text has in a row, and that no vocabulary has as a token.
MARK = "zqxvjkwq"
#: Characters in one request: 0.1 s of an embedder's time, and 500 KB of an answer.
BATCH_CHARS = 100_000
#: Requests at the same time.
CONCURRENCY = 4
#: Until an embedder that could not count is asked again, in seconds.
RETRY_S = 300

#: What tokenizers add around a text at most, such as [CLS] and [SEP], where it cannot be asked.
_ASSUMED_SPECIAL = 4
#: What makes a token at most: four letters of English, one of another script, a digit, a sign.
_PIECE = re.compile(r"[A-Za-z]{1,4}|[^\sA-Za-z]")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """What is known of an embedder's tokenizer."""

    mark: tuple[int, ...]
    """The tokens of the mark in the midst of text."""
    special: int
    """Tokens that it adds around a text."""
    window: int
    """Tokens that the embedder reads of a text, those included."""


class TokenCounter:
    """Counts for one embedder."""

    def __init__(self, model: str, gateway: GatewayClient) -> None:
        self._model = model
        self._gateway = gateway
        self._tokenizer: Tokenizer | None = None
        self._ask_again = 0.0

    async def room(self, max_tokens: int, caller: Caller) -> int:
        """How many tokens of text a passage of at most ``max_tokens`` may have; less than that in a small window."""
        tokenizer = await self._known(caller)
        if tokenizer is None:
            return max_tokens - _ASSUMED_SPECIAL
        return min(max_tokens, tokenizer.window) - tokenizer.special

    async def count(self, texts: Iterable[str], caller: Caller) -> dict[str, int]:
        """The tokens of each text.

        Raises:
            ServingError: the embedder does not answer.
        """
        distinct = list(dict.fromkeys(texts))
        tokenizer = await self._known(caller)
        if tokenizer is None:
            return {text: estimate(text) for text in distinct}
        batches = list(_batches(distinct))
        calls = (partial(self._count, batch, tokenizer, caller) for batch in batches)
        counts = await gathered(calls, CONCURRENCY)
        return {
            text: tokens
            for batch, sizes in zip(batches, counts, strict=True)
            for text, tokens in zip(batch, sizes, strict=True)
        }

    async def _count(self, batch: Sequence[str], tokenizer: Tokenizer, caller: Caller) -> list[int]:
        joined = f" {MARK} ".join(["", *batch, ""])
        answer = await self._gateway.tokenize(self._model, joined, caller)
        counts = _between(answer.tokens, tokenizer.mark)
        if len(counts) == len(batch):
            return counts
        # The model has been replaced by one of another vocabulary, or a text has the mark.
        logger.warning("the embedder's count cannot be read", extra={"model": self._model})
        self._tokenizer = None
        return [estimate(text) for text in batch]

    async def _known(self, caller: Caller) -> Tokenizer | None:
        if self._tokenizer is None and time.monotonic() >= self._ask_again:
            try:
                self._tokenizer = await self._ask(caller)
            except (UpstreamFailed, InvalidRequest):
                logger.warning("the embedder does not count tokens; they are estimated", extra={"model": self._model})
            if self._tokenizer is None:
                self._ask_again = time.monotonic() + RETRY_S
        return self._tokenizer

    async def _ask(self, caller: Caller) -> Tokenizer | None:
        """What the tokenizer makes of the mark; None if it joins what white space keeps apart."""
        marks = " ".join([MARK] * 4)
        plain, whole = await asyncio.gather(
            self._gateway.tokenize(self._model, marks, caller),
            self._gateway.tokenize(self._model, marks, caller, special=True),
        )
        tokens = plain.tokens
        for length in range(1, len(tokens) // 3 + 1):
            mark = tuple(tokens[-length:])
            if tokens[-2 * length : -length] == list(mark) and tokens[-3 * length : -2 * length] == list(mark):
                return Tokenizer(mark, len(whole.tokens) - len(tokens), plain.window)
        return None


def estimate(text: str) -> int:
    """The tokens of a text, rather too many than too few."""
    return sum(1 for _ in _PIECE.finditer(text))


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > BATCH_CHARS:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text) + len(MARK)
    if batch:
        yield batch


def _between(tokens: list[int], mark: tuple[int, ...]) -> list[int]:
    """How many tokens stand between each two marks."""
    counts: list[int] = []
    begin = -1
    at = 0
    while True:
        try:
            at = tokens.index(mark[0], at)
        except ValueError:
            return counts
        if tuple(tokens[at : at + len(mark)]) != mark:
            at += 1
            continue
        if begin >= 0:
            counts.append(at - begin)
        at += len(mark)
        begin = at
