import random
from collections import Counter, deque
from dataclasses import dataclass

import orjson
import pytest

from serve_apps.gateway import request
from serve_apps.gateway.affinity import (
    BLOCK_BYTES,
    IN_FLIGHT_FACTOR,
    SHARE_WINDOW,
    SPARE_IN_FLIGHT,
    Affinity,
    beginnings,
    ends,
)


@dataclass(frozen=True)
class Target:
    key: str


def replicas(count: int) -> list[Target]:
    return [Target(f"replica-{number}") for number in range(count)]


def text(seed: int, size: int = 4096) -> bytes:
    return random.Random(seed).randbytes(size)


def ask(affinity: Affinity, targets: list[Target], prompt: bytes = b"", session: str | None = None) -> Target:
    """A request that has ended when this returns."""
    chosen = affinity.choose("chat", prompt, session, targets)
    affinity.done("chat", chosen)
    return chosen


def imbalance(chosen: list[Target], targets: list[Target]) -> float:
    counts = Counter(chosen)
    return max(counts.values()) * len(targets) / len(chosen)


def test_a_single_replica_is_chosen_at_once() -> None:
    affinity = Affinity(100)
    assert affinity.choose("chat", text(1), "session", replicas(1)) == Target("replica-0")
    assert len(affinity) == 0


def test_without_replicas_nothing_is_chosen() -> None:
    with pytest.raises(ValueError, match=r"^There is no replica to choose from\.$"):
        Affinity(100).choose("chat", text(1), None, [])


def test_a_conversation_stays_on_its_replica() -> None:
    affinity, targets = Affinity(1000), replicas(8)
    first = ask(affinity, targets, text(1))
    for turn in range(2, 20):
        assert ask(affinity, targets, text(1) + text(2, turn * 500)) == first


def test_other_conversations_go_to_other_replicas() -> None:
    affinity, targets = Affinity(10_000), replicas(8)
    chosen = [ask(affinity, targets, text(seed)) for seed in range(200)]
    assert set(chosen) == set(targets)
    assert imbalance(chosen, targets) < 1.3


def test_chats_with_one_system_prompt_are_told_apart_by_their_bodies() -> None:
    """From the bytes a client sends: each turn repeats the turns before it."""
    affinity, targets = Affinity(10_000), replicas(8)
    headers = [(b"content-type", b"application/json")]
    system = {"role": "system", "content": "You are a careful assistant. " * 300}

    def turn(chat: int, turns: int) -> Target:
        said = [{"role": "user", "content": f"{chat}-{number} " * 100} for number in range(turns)]
        body = orjson.dumps({"model": "chat", "temperature": turns, "messages": [system, *said]})
        return ask(affinity, targets, request.read("/v1/chat/completions", headers, body).prefix())

    first = [turn(chat, 4) for chat in range(200)]
    assert set(first) == set(targets)
    # The first few were sent before it was known that all begin alike.
    assert [turn(chat, 6) for chat in range(50, 200)] == first[50:]


def test_a_session_stays_on_its_replica_whatever_its_prompts() -> None:
    affinity, targets = Affinity(10_000), replicas(8)
    assert len({ask(affinity, targets, text(seed), "mine") for seed in range(200)}) == 1


def test_other_sessions_go_to_other_replicas() -> None:
    affinity, targets = Affinity(10_000), replicas(8)
    chosen = [ask(affinity, targets, session=f"session-{number}") for number in range(200)]
    assert set(chosen) == set(targets)
    assert [ask(affinity, targets, session=f"session-{number}") for number in range(200)] == chosen


def test_a_session_leaves_a_busy_replica_but_not_one_that_is_a_bit_busy() -> None:
    affinity, targets = Affinity(1000), replicas(4)
    home = ask(affinity, targets, session="mine")
    kept = [affinity.choose("chat", b"", "mine", targets) for _ in range(SPARE_IN_FLIGHT)]
    assert set(kept) == {home}
    chosen = [affinity.choose("chat", b"", "mine", targets) for _ in range(20)]
    assert set(chosen) > {home}


def test_a_session_name_that_everybody_has_leaves_conversations_where_they_are() -> None:
    affinity, targets = Affinity(100_000), replicas(8)
    under_way: deque[Target] = deque()

    def busily(prompt: bytes) -> Target:
        """Ask while 16 other requests are under way."""
        under_way.append(affinity.choose("chat", prompt, "application", targets))
        if len(under_way) > 16:
            affinity.done("chat", under_way.popleft())
        return under_way[-1]

    first = [busily(text(seed)) for seed in range(2 * SHARE_WINDOW)]
    assert imbalance(first, targets) < 1.3
    later = [busily(text(seed) + b"more" * 500) for seed in range(2 * SHARE_WINDOW)]
    kept = sum(one == other for one, other in zip(first, later, strict=True))
    assert kept >= 0.9 * len(first)


def test_without_prompt_and_session_the_least_loaded_are_chosen_in_turn() -> None:
    affinity, targets = Affinity(1000), replicas(4)
    held = [affinity.choose("chat", b"", None, targets) for _ in range(8)]
    assert Counter(held) == dict.fromkeys(targets, 2)
    affinity.done("chat", targets[2])
    assert affinity.choose("chat", b"", None, targets) == targets[2]


def test_ties_take_turns() -> None:
    affinity, targets = Affinity(1000), replicas(4)
    assert Counter(ask(affinity, targets) for _ in range(40)) == dict.fromkeys(targets, 10)


def test_no_replica_gets_more_at_a_time_than_a_factor_above_the_mean() -> None:
    affinity, targets = Affinity(1000), replicas(8)
    held = Counter(affinity.choose("chat", text(1), "mine", targets) for _ in range(400))
    assert max(held.values()) <= IN_FLIGHT_FACTOR * 400 / 8 + SPARE_IN_FLIGHT + 1


def test_a_system_prompt_that_all_share_overloads_no_replica() -> None:
    affinity, targets = Affinity(100_000), replicas(8)
    system = text(0, 20_000)
    chosen = [ask(affinity, targets, system + text(seed)) for seed in range(1, 1000)]
    assert imbalance(chosen, targets) <= 1.25
    again = [ask(affinity, targets, system + text(seed) + text(seed, 8000)) for seed in range(900, 1000)]
    assert again == chosen[-100:]


def test_a_document_that_few_share_stays_on_one_replica() -> None:
    affinity, targets = Affinity(100_000), replicas(8)
    chosen = []
    for seed in range(1, 1000):
        if seed % 50 == 0:
            chosen.append(ask(affinity, targets, text(10_001, 20_000) + text(seed)))
        ask(affinity, targets, text(seed))
    assert len(set(chosen)) == 1


def test_the_same_requests_lead_to_the_same_choices() -> None:
    def chosen() -> list[Target]:
        affinity, targets = Affinity(500), replicas(5)
        return [
            affinity.choose("chat", text(seed % 40), f"{seed % 7}" if seed % 3 else None, targets)
            for seed in range(300)
        ]

    assert chosen() == chosen()


def test_keys_are_the_same_in_every_process() -> None:
    assert beginnings(b"a" * (2 * BLOCK_BYTES)) == [1102472623705, 2203206119505]


def test_gateways_that_know_nothing_of_each_other_agree() -> None:
    targets, seeds = replicas(8), list(range(300))
    one, other = Affinity(100_000), Affinity(100_000)
    chosen = {seed: ask(one, targets, text(seed)) for seed in seeds}
    random.Random(1).shuffle(seeds)
    agreed = sum(ask(other, targets, text(seed) + text(10_000 + seed)) == chosen[seed] for seed in seeds)
    assert agreed >= 0.75 * len(seeds)


def test_memory_is_bounded() -> None:
    affinity, targets = Affinity(50), replicas(3)
    for seed in range(200):
        ask(affinity, targets, text(seed), f"session-{seed}")
        assert len(affinity) <= 50
    assert len(affinity) == 50


def test_what_was_used_last_is_remembered() -> None:
    affinity, targets = Affinity(100), replicas(8)
    kept = text(10_000, 600)
    home = ask(affinity, targets, kept)
    for seed in range(200):
        ask(affinity, targets, text(seed, 600))
        if seed % 40 == 0:
            assert ask(affinity, targets, kept) == home
    assert len(affinity) == 100


@pytest.mark.parametrize("entries", [0, 1000])
def test_with_no_memory_only_load_counts(entries: int) -> None:
    affinity, targets = Affinity(entries), replicas(4)
    chosen = Counter(ask(affinity, targets, text(1), "mine") for _ in range(40))
    assert chosen == (dict.fromkeys(targets, 10) if entries == 0 else {next(iter(chosen)): 40})
    assert (len(affinity) == 0) == (entries == 0)


def test_a_lost_replica_moves_only_its_own_conversations() -> None:
    affinity, targets = Affinity(100_000), replicas(8)
    before = {seed: ask(affinity, targets, text(seed)) for seed in range(200)}
    lost, left = targets[3], targets[:3] + targets[4:]
    after = {seed: ask(affinity, left, text(seed) + text(10_000 + seed)) for seed in before}
    assert lost in before.values()
    assert lost not in after.values()
    assert all(after[seed] == before[seed] for seed in before if before[seed] != lost)
    assert len({after[seed] for seed in before if before[seed] == lost}) > 1


def test_the_same_without_memory() -> None:
    """A gateway that has just started places what it does not know as the others did before the loss."""
    targets = replicas(8)
    left = targets[:3] + targets[4:]
    for seed in range(40):
        before, after = ask(Affinity(100), targets, text(seed)), ask(Affinity(100), left, text(seed))
        assert after == before or before == targets[3]


def test_a_new_replica_gets_its_share_of_what_is_new_and_nothing_else() -> None:
    affinity, targets = Affinity(100_000), replicas(4)
    before = {seed: ask(affinity, targets, text(seed)) for seed in range(100)}
    more = replicas(5)
    assert {seed: ask(affinity, more, text(seed) + text(10_000 + seed)) for seed in before} == before
    placed = Counter(ask(affinity, more, text(seed)) for seed in range(1000, 1200))
    assert 20 <= placed[more[4]] <= 60


def test_what_ends_on_a_lost_replica_is_not_taken_off_the_others() -> None:
    affinity, targets = Affinity(1000), replicas(2)
    held = [affinity.choose("chat", b"", None, targets) for _ in range(6)]
    assert [affinity.choose("chat", b"", None, targets[:1]) for _ in range(3)] == [targets[0]] * 3
    for target in held:
        affinity.done("chat", target)
    affinity.done("chat", targets[1])
    affinity.done("unknown", targets[1])
    # replica-0 still has three, the other none, whatever was ended too often.
    assert [affinity.choose("chat", b"", None, targets) for _ in range(3)] == [targets[1]] * 3


def test_models_have_loads_of_their_own() -> None:
    affinity, targets = Affinity(1000), replicas(2)
    for _ in range(3):
        affinity.choose("chat", b"", None, targets[:1])
    assert affinity.choose("chat", b"", None, targets) == targets[1]
    assert affinity.choose("embedder", b"", None, targets) == targets[0]


def test_where_nothing_comes_again_load_alone_decides() -> None:
    affinity, targets = Affinity(100_000), replicas(8)
    for seed in range(6 * SHARE_WINDOW):
        ask(affinity, targets, text(seed, 600))
    held = Counter(affinity.choose("chat", text(10_000 + seed, 600), None, targets) for seed in range(1, 81))
    assert held == dict.fromkeys(targets, 10)


def test_longer_prompts_have_the_beginnings_of_shorter_ones() -> None:
    short, long = beginnings(text(1, 3000)), beginnings(text(1, 3000) + text(2, 3000))
    assert long[: len(short)] == short
    assert len(long) > len(short)


def test_prompts_that_differ_at_once_share_no_beginning() -> None:
    assert not set(beginnings(b"a" + text(1))) & set(beginnings(b"b" + text(1)))


def test_a_prompt_shorter_than_a_block_has_no_beginning() -> None:
    assert beginnings(b"a" * (BLOCK_BYTES - 1)) == []
    assert len(beginnings(b"a" * BLOCK_BYTES)) == 1


def test_beginnings_grow_with_their_length_and_are_few() -> None:
    assert ends(64) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64]
    assert len(beginnings(text(1, 220_000))) == 34
    assert len(beginnings(bytes(8 * 1024 * 1024))) < 50


def adapter_traffic(knows_adapters: bool, requests: int = 2000, at_a_time: int = 16) -> tuple[float, float]:
    """Eight adapters with prompts of their own on four replicas: replicas for each adapter lately, and imbalance."""
    affinity, targets = Affinity(10_000), replicas(4)
    chance = random.Random(3)
    running: deque[Target] = deque()
    chosen: list[tuple[str, Target]] = []
    for number in range(requests):
        if len(running) == at_a_time:
            affinity.done("chat", running.popleft())
        adapter = f"adapter-{chance.randrange(8)}"
        target = affinity.choose("chat", text(number, 512), None, targets, adapter if knows_adapters else None)
        running.append(target)
        chosen.append((adapter, target))
    lately = chosen[requests // 2 :]
    spread = Counter(lately)
    # Where an adapter was asked now and then, it was the load's doing.
    homes = sum(count > len(lately) / 100 for count in spread.values())
    return homes / 8, imbalance([target for _, target in lately], targets)


def test_an_adapters_requests_go_where_it_is_loaded_while_load_is_even() -> None:
    homes, uneven = adapter_traffic(knows_adapters=True)
    scattered, _ = adapter_traffic(knows_adapters=False)
    assert scattered == 4
    assert homes <= 2
    assert uneven < 1.2


def test_an_adapter_that_all_ask_for_is_served_by_all_replicas() -> None:
    affinity, targets = Affinity(1000), replicas(4)
    chosen = [affinity.choose("chat", text(number), None, targets, "sql") for number in range(100)]
    assert imbalance(chosen, targets) < 1.4


def test_what_one_adapter_has_cached_is_nothing_to_another() -> None:
    affinity, targets = Affinity(1000), replicas(8)
    homes = set()
    for adapter in [None, *(f"adapter-{number}" for number in range(20))]:
        target = affinity.choose("chat", text(1), None, targets, adapter)
        affinity.done("chat", target)
        homes.add(target)
    assert len(homes) > 4
