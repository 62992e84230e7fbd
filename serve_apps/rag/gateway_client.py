"""The models of a pipeline, as the gateway offers them: embeddings and reranking beside chat completions."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serve_apps.common import gateway_client
from serve_apps.common.gateway_client import Caller, unreadable
from serve_apps.rag.vector_store import Vector

#: Texts per embedding request: enough to fill a GPU's batch, small enough to be answered in seconds on a CPU.
EMBEDDING_BATCH = 64

#: vLLM cuts an input at the model's window instead of refusing the whole batch for one long text.
_TO_WINDOW = {"truncate_prompt_tokens": -1}


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A text as a model reads it."""

    tokens: list[int]
    window: int
    """Tokens that the model reads at most."""


class GatewayClient(gateway_client.GatewayClient):
    """Calls a pipeline's models through the gateway. One per process."""

    async def embed(self, model: str, texts: Sequence[str], caller: Caller) -> list[Vector]:
        """One vector per text, asked for in batches."""
        whom = f"Model {model!r}"
        vectors: list[Vector] = []
        for begin in range(0, len(texts), EMBEDDING_BATCH):
            batch = list(texts[begin : begin + EMBEDDING_BATCH])
            request = {"model": model, "input": batch, "encoding_format": "base64", **_TO_WINDOW}
            answer = await self.ask("/v1/embeddings", request, caller, whom)
            try:
                ordered = sorted(answer["data"], key=lambda each: int(each["index"]))
                vectors += [_vector(each["embedding"]) for each in ordered]
            except (KeyError, TypeError, ValueError) as error:
                raise unreadable(whom) from error
        if len(vectors) != len(texts):
            raise unreadable(whom)
        return vectors

    async def rerank(self, model: str, query: str, documents: Sequence[str], caller: Caller) -> list[float]:
        """How relevant each document is to ``query``, in their order; higher is better."""
        whom = f"Model {model!r}"
        request = {"model": model, "query": query, "documents": list(documents), **_TO_WINDOW}
        answer = await self.ask("/v1/rerank", request, caller, whom)
        try:
            scores = {int(each["index"]): float(each["relevance_score"]) for each in answer["results"]}
            return [scores[index] for index in range(len(documents))]
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(whom) from error

    async def tokenize(self, model: str, text: str, caller: Caller, *, special: bool = False) -> Tokenized:
        """The tokens of ``text``, however long; ``special``: with those that the model adds."""
        whom = f"Model {model!r}"
        request = {"model": model, "prompt": text, "add_special_tokens": special}
        answer = await self.ask("/tokenize", request, caller, whom)
        try:
            return Tokenized([int(token) for token in answer["tokens"]], int(answer["max_model_len"]))
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(whom) from error


def _vector(embedding: str | list[float]) -> Vector:
    """From base64 of little-endian float32, as asked for, or from numbers, as some servers answer anyway."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
    return np.asarray(embedding, dtype=np.float32)
