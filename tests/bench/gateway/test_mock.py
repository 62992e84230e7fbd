import asyncio
import json

from bench.gateway.mock import SEQUENCES, Engines, Order, read


async def events(engines: Engines, order: Order) -> list[bytes]:
    return [event async for event in engines.tokens(order)]


def test_a_request_says_how_many_tokens_and_how_fast() -> None:
    document = {"stream": True, "max_tokens": 7, "seed": 5, "stream_options": {"include_usage": True}}
    assert read(document) == Order(stream=True, tokens=7, pace_s=0.005, include_usage=True)


def test_a_request_that_says_nothing_gets_one_token() -> None:
    assert read({"model": "mock"}) == Order(stream=False, tokens=1, pace_s=0.01, include_usage=False)


def test_a_stream_has_its_tokens_and_ends_as_vllm_ends_it() -> None:
    found = asyncio.run(events(Engines(), Order(stream=True, tokens=3, pace_s=0.001, include_usage=False)))
    documents = [json.loads(text[6:]) for text in b"".join(found).decode().split("\n\n")[:-2]]
    assert [one["choices"][0]["finish_reason"] for one in documents] == [None, None, "length"]
    assert b"".join(found).endswith(b"data: [DONE]\n\n")


def test_usage_comes_only_where_it_is_asked_for() -> None:
    def usages(wanted: bool) -> int:
        order = Order(stream=True, tokens=1, pace_s=0.001, include_usage=wanted)
        return b"".join(asyncio.run(events(Engines(), order))).count(b'"usage"')

    assert (usages(True), usages(False)) == (1, 0)


def test_streams_of_one_engine_get_their_tokens_in_the_same_step() -> None:
    async def order_of_arrival() -> list[str]:
        arrived: list[str] = []
        engines = Engines()

        async def listen(name: str) -> None:
            order = Order(stream=True, tokens=4, pace_s=0.02, include_usage=False)
            async for _ in engines.tokens(order):
                arrived.append(name)  # noqa: PERF401 - when, not what

        await asyncio.gather(listen("a"), listen("b"))
        return arrived

    arrived = asyncio.run(order_of_arrival())
    assert [sorted(arrived[index : index + 2]) for index in range(0, 8, 2)] == [["a", "b"]] * 4


def test_a_full_engine_gets_a_neighbour_and_one_with_room_does_not() -> None:
    async def engines_of(streams: int) -> int:
        engines = Engines()
        order = Order(stream=True, tokens=3, pace_s=0.001, include_usage=False)
        await asyncio.gather(*(events(engines, order) for _ in range(streams)))
        return len(engines._engines[order.pace_s])

    assert asyncio.run(engines_of(SEQUENCES)) == 1
    assert asyncio.run(engines_of(SEQUENCES + 1)) == 2
