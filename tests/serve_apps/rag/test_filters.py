from typing import Any

import pytest

from serve_apps.common.errors import InvalidRequest
from serve_apps.rag.filters import FACET_CHARS, facets, parse

METADATA = {"lang": "en", "year": 2024, "draft": False, "tags": ["a", "b"], "nested": {"lang": "de"}, "none": None}


@pytest.mark.parametrize(
    ("given", "matches"),
    [
        ({"lang": "en"}, True),
        ({"lang": "de"}, False),
        ({"lang": {"$in": ["de", "en"]}}, True),
        ({"lang": "en", "year": 2024}, True),
        ({"lang": "en", "year": 2025}, False),
        ({"year": 2024.0}, True),
        ({"year": 2024.5}, False),
        ({"year": "2024"}, False),
        ({"draft": False}, True),
        ({"draft": 0}, False),
        ({"tags": "b"}, True),
        ({"tags": {"$in": ["c", "b"]}}, True),
        ({"tags": "c"}, False),
        ({"nested": "de"}, False),
        ({"author": "me"}, False),
        ({"lang": 10**30}, False),
    ],
)
def test_a_document_matches_by_its_values(given: dict[str, Any], matches: bool) -> None:
    where = parse(given)
    assert where is not None
    assert where.matches(facets(METADATA)) is matches


@pytest.mark.parametrize("nothing", [None, {}])
def test_a_filter_may_ask_for_nothing(nothing: Any) -> None:
    assert parse(nothing) is None


def test_a_facet_is_hexadecimal_whatever_is_in_it() -> None:
    [facet] = facets({"' or 1 == 1": '"; DROP TABLE'})
    assert len(facet) == FACET_CHARS
    assert int(facet, 16) > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("lang", 'filter: must be an object such as {"lang": "en", "year": {"$in": [2024, 2025]}}'),
        ([], 'filter: must be an object such as {"lang": "en", "year": {"$in": [2024, 2025]}}'),
        ({"year": {"$gt": 3}}, "filter.year: knows the operator $in only, got $gt"),
        ({"year": {"$in": [1], "$gt": 3}}, "filter.year: knows the operator $in only, got $gt"),
        ({"year": {}}, "filter.year: knows the operator $in only, got nothing"),
        ({"year": None}, 'filter.year: must be a text, a number, true, false or {"$in": […]}'),
        ({"year": [1]}, 'filter.year: must be a text, a number, true, false or {"$in": […]}'),
        ({"year": {"$in": []}}, "filter.year: $in takes a list of 1 to 100 values"),
        ({"year": {"$in": "a"}}, "filter.year: $in takes a list of 1 to 100 values"),
        ({"year": {"$in": list(range(101))}}, "filter.year: $in takes a list of 1 to 100 values"),
        ({"year": {"$in": [{}]}}, "filter.year: $in takes texts, numbers, true and false"),
        ({str(key): 1 for key in range(17)}, "filter: 16 keys at most, got 17"),
    ],
)
def test_what_is_no_filter_is_refused_with_what_would_be(given: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse(given)
    assert raised.value.message == message
    assert raised.value.param == "filter"
