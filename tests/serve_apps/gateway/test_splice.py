import json
import random
from typing import Any

import orjson
import pytest

from serve_apps.gateway.splice import field, set_fields


def changed(body: bytes, **fields: Any) -> bytes:
    return set_fields(body, orjson.loads(body), {name: orjson.dumps(value) for name, value in fields.items()})


@pytest.mark.parametrize(
    ("body", "becomes"),
    [
        (b"{}", b'{"a":2}'),
        (b" { } \n", b' { "a":2} \n'),
        (b'{"b":1}', b'{"b":1,"a":2}'),
        (b'{"b":"}"}\r\n', b'{"b":"}","a":2}\r\n'),
    ],
)
def test_a_field_that_is_not_there_is_added(body: bytes, becomes: bytes) -> None:
    assert changed(body, a=2) == becomes


@pytest.mark.parametrize(
    ("body", "becomes"),
    [
        (b'{"a":1}', b'{"a":2}'),
        (b'{"a" : "x,}" , "b":1}', b'{"a" : 2 , "b":1}'),
        (b'{"b":[{"a":1}],"a":null}', b'{"b":[{"a":1}],"a":2}'),
        (b'{"a":{"a":{"a":"}"}},"b":"a"}', b'{"a":2,"b":"a"}'),
        (b'{"a":[[1,"]"],{}],"b":1}', b'{"a":2,"b":1}'),
        (b'{"b":"\\"a\\":1","a":-1.5e3}', b'{"b":"\\"a\\":1","a":2}'),
        (b'{"b":"a","a":1}', b'{"b":"a","a":2}'),
        (b'{"\\u0061":1,"b":{"a":3}}', b'{"\\u0061":2,"b":{"a":3}}'),
        (b'{"a":"\\\\","b":"\\u0061"}', b'{"a":2,"b":"\\u0061"}'),
    ],
)
def test_a_field_that_is_there_is_replaced_where_it_stands(body: bytes, becomes: bytes) -> None:
    assert changed(body, a=2) == becomes


def test_of_two_fields_of_one_name_the_one_that_counts_is_replaced() -> None:
    body = changed(b'{"a":1,"b":0,"a":3}', a=2)
    assert body == b'{"a":1,"b":0,"a":2}'
    assert json.loads(body)["a"] == 2


def test_several_fields_are_set_at_once() -> None:
    assert changed(b'{"c":1,"a":1}', a=2, b=3, c=4, d=5) == b'{"c":4,"a":2,"b":3,"d":5}'


@pytest.mark.parametrize(
    "value",
    [
        b"123456789012345678901234567890",
        b"0.1000000000000000055511151231257827",
        b"1E5",
        b"-0",
        '"é\\u00e9😀\\/"'.encode(),
    ],
)
def test_what_a_parser_would_lose_stays_as_it_came(value: bytes) -> None:
    assert changed(b'{"a":1,"unknown":' + value + b"}", a=2) == b'{"a":2,"unknown":' + value + b"}"


def test_a_fields_value_is_found_as_it_stands() -> None:
    assert field(b'{"x":{"a":1},"a": {"b" : 1.0} }', "a") == b'{"b" : 1.0}'


def test_any_document_keeps_all_that_was_not_set() -> None:
    chance = random.Random(5)

    def value(depth: int) -> Any:
        kinds = [None, True, -3, 2**70, 1.5, 'a"\\', "model", '"model":', "\u00e9\n}{][", ""]
        if depth and chance.random() < 0.5:
            return {key(): value(depth - 1) for _ in range(chance.randrange(4))}
        if depth and chance.random() < 0.3:
            return [value(depth - 1) for _ in range(chance.randrange(4))]
        return chance.choice(kinds)

    def key() -> str:
        return chance.choice(["model", "a", "x\\y", 'm"', "priority", "é", ""])

    for _ in range(2000):
        document = {key(): value(3) for _ in range(chance.randrange(6))}
        body = json.dumps(document, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 1])).encode()
        out = set_fields(body, orjson.loads(body), {"model": b'"other"', "priority": b"7"})
        assert json.loads(out) == document | {"model": "other", "priority": 7}, body
