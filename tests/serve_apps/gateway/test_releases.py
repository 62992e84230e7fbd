import itertools
import logging
import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_apps.common.errors import (
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
    ServingError,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from serve_apps.gateway.config import RoutingTable
from serve_apps.gateway.releases import CONTEXT_OVERFLOW, Plan, Releases, falls_back
from serve_apps.gateway.request import Wish

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
USERS = 4000

Weights = Mapping[str, float]


def asks(model: object = "chat", **what: str) -> Wish:
    """A request that names ``model``; ``what``: user, session, pin."""
    return Wish(CHAT, b"", None, model, **what)  # type: ignore[arg-type]


def releases(route: dict[str, Any], seed: int = 1, **more_models: Any) -> Releases:
    """The route ``chat`` over the models it names, each of which can chat."""
    named = [version["model"] for version in route["versions"]] + route.get("fallback", [])
    named += [route["shadow"]["model"]] if "shadow" in route else []
    models = {name: {"url": f"http://host/{name}", "task": "generate"} for name in named} | more_models
    table = RoutingTable.model_validate(
        {"models": {name: model for name, model in models.items() if model}, "routes": {"chat": route}}
    )
    return Releases(table, random.Random(seed).random)


def route(weights: Weights, **rules: Any) -> dict[str, Any]:
    return {"versions": [{"model": name, "weight": weight} for name, weight in weights.items()], **rules}


def planned(made: Releases, wish: Wish | None = None, path: str = CHAT, tenant: str = "acme", *off: str) -> Plan:
    return made.plan(path, wish or asks(), tenant, lambda _: frozenset(off))


def versions_of(made: Releases, *off: str, users: int = USERS) -> dict[str, str]:
    return {
        user: planned(made, asks(user=user), CHAT, "acme", *off).candidates[0].version
        for user in (f"user-{number}" for number in range(users))
    }


def by_user(weights: Weights, *off: str, users: int = USERS) -> dict[str, str]:
    return versions_of(releases(route(weights, sticky="user")), *off, users=users)


def moves(before: dict[str, str], after: dict[str, str]) -> Iterator[tuple[str, str]]:
    return ((version, after[user]) for user, version in before.items() if after[user] != version)


def share(versions: Mapping[str, str], version: str) -> float:
    return sum(chosen == version for chosen in versions.values()) / len(versions)


# Who stays and who moves


def test_users_are_split_by_weight() -> None:
    split = by_user({"a": 70, "b": 20, "c": 10}, users=20_000)
    assert [share(split, version) for version in "abc"] == pytest.approx([0.7, 0.2, 0.1], abs=0.01)


@pytest.mark.parametrize("first", ["stable", "canary"])
def test_from_5_to_10_percent_5_percent_of_the_users_move_and_all_to_the_one_that_grew(first: str) -> None:
    def split(percent: float) -> dict[str, str]:
        weights = {"stable": 100 - percent, "canary": percent}
        return by_user({first: weights.pop(first), **weights}, users=20_000)

    moved = list(moves(split(5), split(10)))
    assert set(moved) == {("stable", "canary")}
    assert len(moved) / 20_000 == pytest.approx(0.05, abs=0.005)


def test_no_user_ever_leaves_a_version_that_grows_from_nothing_to_everything() -> None:
    steps = [by_user({"stable": 100 - percent, "canary": percent}) for percent in (0, 1, 5, 10, 25, 50, 75, 100)]
    for before, after in itertools.pairwise(steps):
        assert set(moves(before, after)) == {("stable", "canary")}
    assert set(steps[0].values()) == {"stable"}
    assert set(steps[-1].values()) == {"canary"}


weights = st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e", "f"]), st.floats(0.5, 100), min_size=2, max_size=6)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(weights, st.data())
def test_users_move_only_to_a_version_whose_weight_grew_against_their_own(before: Weights, data: st.DataObject) -> None:
    after = {name: data.draw(st.floats(0.5, 100)) for name in before}
    for left, entered in set(moves(by_user(before, users=1000), by_user(after, users=1000))):
        assert after[entered] / before[entered] > after[left] / before[left]


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(weights, st.data())
def test_when_one_weight_grows_nobody_moves_but_to_it(before: Weights, data: st.DataObject) -> None:
    grown = data.draw(st.sampled_from(sorted(before)))
    after = {**before, grown: data.draw(st.floats(before[grown], 100))}
    assert {entered for _, entered in moves(by_user(before, users=1000), by_user(after, users=1000))} <= {grown}


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(weights, st.data())
def test_only_the_users_of_a_version_that_is_taken_out_move(before: Weights, data: st.DataObject) -> None:
    out = data.draw(st.sampled_from(sorted(before)))
    was, without = by_user(before, users=1000), by_user(before, out, users=1000)
    assert {left for left, _ in moves(was, without)} <= {out}
    assert out not in without.values()
    assert without == by_user({**before, out: 0}, users=1000)
    assert without == by_user({name: weight for name, weight in before.items() if name != out}, users=1000)


def test_the_share_of_a_version_that_is_out_goes_to_the_others_in_proportion() -> None:
    split = by_user({"a": 60, "b": 20, "c": 20}, "c", users=20_000)
    assert [share(split, version) for version in "abc"] == pytest.approx([0.75, 0.25, 0], abs=0.01)


def test_the_order_of_the_versions_does_not_matter() -> None:
    assert by_user({"a": 60, "b": 30, "c": 10}) == by_user({"c": 10, "a": 60, "b": 30})


def test_routes_split_their_users_independently() -> None:
    """Else the same users would meet every canary there is."""
    half = {"a": 50.0, "b": 50.0}
    models = {name: {"url": f"http://host/{name}", "task": "generate"} for name in half}
    table = {"models": models, "routes": {name: route(half, sticky="user") for name in ("chat", "other")}}
    made = Releases(RoutingTable.model_validate(table))
    same = sum(
        planned(made, asks("chat", user=str(number))).candidates
        == planned(made, asks("other", user=str(number))).candidates
        for number in range(USERS)
    )
    assert same / USERS == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(
    ("sticky", "stays", "spreads"),
    [
        ("user", [{"user": "u", "session": str(n)} for n in range(50)], [{"user": str(n)} for n in range(50)]),
        ("session", [{"session": "s", "user": str(n)} for n in range(50)], [{"session": str(n)} for n in range(50)]),
        ("tenant", [{"user": str(n)} for n in range(50)], None),
        ("none", None, [{"user": "u", "session": "s"}] * 50),
        ("user", None, [{"session": "s"}] * 50),  # who does not say who they are stays nowhere
    ],
)
def test_what_stays_on_one_version_is_what_the_route_says(
    sticky: str, stays: list[dict[str, str]] | None, spreads: list[dict[str, str]] | None
) -> None:
    made = releases(route({"a": 50, "b": 50}, sticky=sticky))

    def asked(wishes: list[dict[str, str]]) -> set[str]:
        return {planned(made, asks(**wish)).candidates[0].version for wish in wishes}

    assert stays is None or len(asked(stays)) == 1
    assert spreads is None or len(asked(spreads)) == 2


def test_tenants_are_spread_over_the_versions_and_so_are_users_of_one_name() -> None:
    for sticky, wish in (("tenant", asks()), ("user", asks(user="default"))):
        made = releases(route({"a": 50, "b": 50}, sticky=sticky))
        chosen = {planned(made, wish, tenant=f"tenant-{number}").candidates[0].version for number in range(50)}
        assert chosen == {"a", "b"}


# Names, pins and paths


def test_a_route_is_named_by_its_name_or_an_alias_and_hides_a_model() -> None:
    hidden = {"url": "http://host/hidden", "task": "generate"}
    made = releases(route({"new": 100}, aliases=["gpt-4o", "openai/gpt-4o:latest"]), chat=hidden, gemma=hidden)
    for name in ("chat", "gpt-4o", "openai/gpt-4o:latest"):
        plan = planned(made, asks(name))
        assert plan.named == "chat"
        assert [(each.version, each.url) for each in plan.candidates] == [("new", f"http://host/new{CHAT}")]
    plain = planned(made, asks("gemma"))
    assert (plain.named, plain.route, [each.version for each in plain.candidates]) == ("gemma", None, ["gemma"])


def test_a_name_that_is_neither_is_not_found() -> None:
    with pytest.raises(NotFound) as caught:
        planned(releases(route({"a": 100})), asks("gpt-5"))
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("nameless", [None, 5, "", ["chat"], {}])
def test_a_request_that_names_nothing_is_told_to(nameless: object) -> None:
    with pytest.raises(InvalidRequest, match='the field "model"'):
        planned(releases(route({"a": 100})), asks(nameless))


def test_a_pin_reaches_a_version_that_is_off_or_has_no_weight_and_nobody_else() -> None:
    made = releases(route({"a": 95, "b": 5, "c": 0}, fallback=["a"], shadow={"model": "a"}))
    for pin in ("a", "b", "c"):
        plan = planned(made, asks(pin=pin), CHAT, "acme", "b")
        assert [each.version for each in plan.candidates] == [pin]
        assert plan.shadow is None


@pytest.mark.parametrize("pin", ["d", "", "x" * 500])
def test_an_unknown_pin_is_told_the_versions(pin: str) -> None:
    with pytest.raises(InvalidRequest, match=r"Its versions: a, b\.") as caught:
        planned(releases(route({"a": 95, "b": 5}), d={"url": "http://host/d", "task": "generate"}), asks(pin=pin))
    assert (caught.value.code, caught.value.param) == ("unknown_version", "x-llm-version")
    assert len(caught.value.message) < 200


def test_a_model_has_itself_as_its_only_version() -> None:
    made = releases(route({"a": 100}))
    assert planned(made, asks("a", pin="a")).candidates[0].version == "a"
    with pytest.raises(InvalidRequest, match=r'"a" has no version "chat". Its versions: a\.'):
        planned(made, asks("a", pin="chat"))


def test_only_those_who_answer_the_path_are_candidates() -> None:
    embedder = {"url": "http://host/e", "task": "embed"}
    made = releases(route({"a": 50, "e": 50}, fallback=["e", "b"], shadow={"model": "e"}), e=embedder)
    for _ in range(20):
        plan = planned(made)
        assert [each.version for each in plan.candidates] == ["a", "b"]
        assert plan.shadow is None
    assert [each.version for each in planned(made, path=EMBEDDINGS).candidates] == ["e"]


def test_where_nobody_answers_the_path_the_error_says_what_is_answered() -> None:
    for wish in (asks(), asks(pin="a")):
        with pytest.raises(
            InvalidRequest, match=rf'"chat" does not answer {EMBEDDINGS}; it answers .*{CHAT}'
        ) as caught:
            planned(releases(route({"a": 100}, fallback=["b"])), wish, path=EMBEDDINGS)
        assert caught.value.code == "unsupported_path"


# Who is asked, and when


def test_after_the_version_come_the_declared_fallbacks_each_once() -> None:
    made = releases(route({"a": 100, "b": 0}, fallback=["b", "a", "far", "b"]))
    assert [each.version for each in planned(made).candidates] == ["a", "b", "far"]


def test_a_version_without_weight_is_not_asked_unless_all_have_none() -> None:
    assert set(by_user({"a": 0, "b": 1}).values()) == {"b"}
    assert set(by_user({"a": 0, "b": 0}).values()) == {"a"}


def test_if_every_version_is_off_they_answer_all_the_same() -> None:
    assert set(by_user({"a": 50, "b": 50}, "a", "b").values()) == {"a", "b"}


def test_a_version_that_is_not_deployed_yet_is_left_out_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made = releases(route({"a": 50, "b": 50}, fallback=["b"], shadow={"model": "b"}), b=None)
        assert {planned(made).candidates[0].version for _ in range(50)} == {"a"}
    assert [(record.route, record.model) for record in caplog.records] == [("chat", "b")]  # type: ignore[attr-defined]


def test_a_route_of_which_nothing_is_deployed_can_be_asked_again_later() -> None:
    with pytest.raises(Unavailable) as caught:
        planned(releases(route({"a": 100}), a=None))
    assert caught.value.retry_after_s
    made = releases(route({"a": 100}, fallback=["b"]), a=None)
    assert [each.version for each in planned(made).candidates] == ["b"]


def test_the_stable_version_is_the_first_of_the_highest_weight_that_is_deployed() -> None:
    assert releases(route({"a": 5, "b": 45, "c": 45})).routes["chat"].stable == "b"
    assert releases(route({"a": 5, "b": 45, "c": 45}), b=None).routes["chat"].stable == "c"


def test_a_shadow_gets_its_share_of_the_requests_and_none_that_it_answers_itself() -> None:
    made = releases(route({"a": 50, "b": 50}, shadow={"model": "b", "percent": 20}))
    plans = [planned(made) for _ in range(USERS)]
    by_a = [plan for plan in plans if plan.candidates[0].version == "a"]
    copied = [plan for plan in by_a if plan.shadow]
    assert len(copied) / len(by_a) == pytest.approx(0.2, abs=0.03)
    assert {plan.shadow.version for plan in copied if plan.shadow} == {"b"}
    assert not any(plan.shadow for plan in plans if plan.candidates[0].version == "b")


def test_the_digest_is_that_of_the_values() -> None:
    def digest(**rules: Any) -> str:
        return planned(releases(route({"a": 95, "b": 5}, **rules))).digest

    assert digest() == digest(sticky="none")
    assert len({digest(), digest(sticky="user"), digest(canary={"maxErrorRate": 0.1}), digest(fallback=["a"])}) == 4


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RateLimited("busy", code="model_overloaded"), True),
        (Unavailable("gone"), True),
        (UpstreamFailed("broke"), True),
        (UpstreamTimeout("slow"), True),
        (ServingError("500"), True),
        (InvalidRequest("too long", code=CONTEXT_OVERFLOW), True),
        (InvalidRequest("wrong"), False),
        (NotFound("no"), False),
        (PermissionDenied("no"), False),
    ],
)
def test_somebody_else_is_asked_where_that_may_help(error: ServingError, expected: bool) -> None:
    assert falls_back(error) is expected
