import asyncio
import random
import sys
from collections.abc import Awaitable, Callable

import openai
import pytest

from serve_apps.common import metrics
from tools import demo_canary
from tools.demo_canary import BAD, GOOD, Gauges, Model, Outcome, Story, demonstrate, served


def outcome(version: str, began_s: float, failed: bool = False, ttft_s: float | None = 0.1) -> Outcome:
    return Outcome(version, began_s, failed, None if failed else ttft_s, None if failed else version)


def shown(*more: Outcome, out_s: float | None = 10) -> Story:
    """What the demo is there to show, and ``more``."""
    outcomes = [outcome(GOOD, 1), outcome(BAD, 2, failed=True), outcome(BAD, 3), outcome(GOOD, 12), outcome(GOOD, 13)]
    return Story([*outcomes, *more], out_s)


def test_nothing_is_missing_where_the_bad_version_is_out_and_nobody_is_harmed() -> None:
    assert shown().missing() == []


@pytest.mark.parametrize(
    ("story", "problem"),
    [
        (shown(out_s=None), "the bad version was not taken out"),
        (shown(outcome(BAD, 12)), "somebody met the bad version after it was taken out"),
        (shown(outcome(GOOD, 12, failed=True)), "somebody was harmed after the bad version was taken out"),
        (shown(Outcome(GOOD, 12, False, 0.1, BAD)), "an answer's x-llm-version is not who answered"),
        (Story([outcome(GOOD, 1), outcome(GOOD, 12)], 10), "no caller met the bad version before it was taken out"),
        (Story([outcome(BAD, 1)], 10), "nobody asked after the bad version was taken out"),
    ],
)
def test_what_did_not_happen_is_said(story: Story, problem: str) -> None:
    assert problem in story.missing()


def test_requests_that_began_while_the_verdict_fell_are_nobodys_fault() -> None:
    assert shown(outcome(BAD, 10.1, failed=True)).missing() == []


def test_a_line_of_the_table_tells_of_both_versions() -> None:
    story = Story([outcome(GOOD, 6, ttft_s=0.1), outcome(GOOD, 7, ttft_s=0.2), outcome(BAD, 8, failed=True)])
    story.outcomes.append(outcome(GOOD, 1, failed=True))  # before this line
    assert [" ".join(cell.split()) for cell in story.line(10, 5, []).split("|")] == [
        "10 s",
        "good 2 0 % 0.20 s 80 %",
        "bad 1 100 % - 20 %",
    ]
    assert [" ".join(cell.split()) for cell in story.line(15, 10, [BAD]).split("|")] == [
        "15 s",
        "good 0 - - 100 %",
        "bad 0 - - 0 %",
    ]
    assert len(story.line(10, 5, [])) == len(demo_canary.HEADER)


def test_the_metric_is_shown_as_it_is_scraped() -> None:
    gauges = Gauges()
    off = metrics.create(metrics.GATEWAY_VERSION_OFF, gauges)
    off.set(1, tags={"model": "assistant", "version": BAD, "rule": "ttft_p95_s"})
    assert dict(gauges.off()) == {
        BAD: 'ray_llm_gateway_version_off{model="assistant",version="bad",rule="ttft_p95_s"} 1'
    }
    off.set(0, tags={"model": "assistant", "version": BAD, "rule": "ttft_p95_s"})
    assert dict(gauges.off()) == {}


def with_model(failing: float, play: Callable[[openai.AsyncOpenAI], Awaitable[None]]) -> dict[str, str]:
    """Play with a client of a model that pretends; who was asked for what."""
    asked: dict[str, str] = {}

    async def played() -> None:
        model = Model(GOOD, 0, failing, random.Random(1), asked)
        async with (
            served(model, lifespan="off") as url,
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client,
        ):
            await play(client)

    asyncio.run(played())
    return asked


def test_a_pretended_model_streams_what_openais_client_reads() -> None:
    async def play(client: openai.AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": "?"}],
            stream=True,
            extra_headers={"x-request-id": "one"},
        )
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(said) == "The canary sings."

    assert with_model(0, play) == {"one": GOOD}


def test_a_pretended_model_fails_in_openais_shape() -> None:
    async def play(client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.InternalServerError, match="out of luck"):
            await client.chat.completions.create(model="any", messages=[{"role": "user", "content": "?"}])

    assert with_model(1, play) == {"": GOOD}


def test_the_gateway_takes_the_bad_version_out_and_nobody_is_harmed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # For its errors alone: where clients, gateway and models wait for a core, the good version is slow, too.
    monkeypatch.setitem(demo_canary.RULES, "ttftP95S", 60)
    story = asyncio.run(demonstrate(12, seed=1, requests_per_s=25))
    assert story.missing() == []
    printed, beside = capfd.readouterr()
    assert "serve_apps.gateway.audit" not in beside, "the table is what there is to read"
    assert "version taken out of service: it broke its SLO" in printed
    assert 'the metric: ray_llm_gateway_version_off{model="assistant",version="bad"' in printed


def test_a_demo_that_is_too_short_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo-canary", "--seconds", "5"])
    with pytest.raises(SystemExit):
        demo_canary.main()
    assert "--seconds must be at least 30" in capsys.readouterr().err
