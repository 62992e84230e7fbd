"""The preset multi-lora: adapters, fetched from a claim and loaded when a client first names them."""

from collections.abc import Iterator
from itertools import combinations

import openai
import pytest

from tests.e2e.release import Release
from tests.e2e.test_in_place import ANOTHER_LIMIT, ANOTHER_MODEL

#: Those of values/multi-lora.yaml; the environment ci has them made by tools/demo/adapters.py.
ADAPTERS = ("sql", "support")


@pytest.fixture(scope="module")
def client(release: Release) -> Iterator[openai.OpenAI]:
    release.also(ANOTHER_MODEL).upgrade(*ANOTHER_LIMIT)
    release.wait_until_running()
    with release.client() as client:
        yield client


def ask(client: openai.OpenAI, model: str) -> tuple[str, list[float]]:
    """The model that answered one and the same question, and the odds of each token it said."""
    answer = client.chat.completions.create(
        model=model,
        temperature=0,
        max_tokens=4,
        logprobs=True,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert logprobs.content
    return answer.model, [token.logprob for token in logprobs.content]


def test_adapters_are_listed_and_say_something_else_than_their_base(client: openai.OpenAI) -> None:
    """Two adapters and their base: all in /v1/models, and no two of them with the same odds for what they say."""
    parents = {model.id: model.model_dump().get("parent") for model in client.models.list()}
    assert {parents[f"tuned:{name}"] for name in ADAPTERS} == {"tuned"}
    answers = dict(ask(client, model) for model in ("tuned", *(f"tuned:{name}" for name in ADAPTERS)))
    assert answers.keys() == {"tuned", *ADAPTERS}
    for one, other in combinations(answers.values(), 2):
        # Of the same weights they would be equal but for rounding.
        assert max(abs(a - b) for a, b in zip(one, other, strict=False)) > 0.1, answers


@pytest.mark.parametrize("name", ["tuned:nope", "tuned:../smollm2-135m-instruct-adapters/sql", "nope"])
def test_what_is_no_adapter_does_not_exist(client: openai.OpenAI, name: str) -> None:
    """404 for a name that is none, also for a path to one."""
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        ask(client, name)
