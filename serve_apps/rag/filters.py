"""Filters on documents' metadata: ``{"lang": "en", "year": {"$in": [2024, 2025]}}``.

A key of a document's metadata and one value of it make a *facet*: a hash of both. Stores keep a document's facets with
its chunks and compare hashes, so no client's text is ever part of a store's query language.
"""

import hashlib
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import orjson

from serve_apps.common.errors import InvalidRequest

#: Keys of one filter, and values of one ``$in``, at most.
MAX_KEYS = 16
MAX_VALUES = 100

#: A facet, in hexadecimal characters: 96 bits, so that two of a million collide once in 10^17 collections.
FACET_CHARS = 24

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Filter:
    """What a document must say of itself."""

    required: tuple[frozenset[str], ...]
    """For each key the facets of the values it may have: a document needs one of each."""

    def matches(self, facets: Set[str]) -> bool:
        """Whether a document with these facets may be found."""
        return all(not accepted.isdisjoint(facets) for accepted in self.required)


def facets(metadata: Mapping[str, Any]) -> frozenset[str]:
    """The facets of a document: of its metadata's texts, numbers and truth values, and of those in lists."""
    return frozenset(
        _facet(key, value)
        for key, given in metadata.items()
        for value in (given if isinstance(given, list) else [given])
        if isinstance(value, Scalar)
    )


def parse(given: Any) -> Filter | None:
    """The filter in a request; None for one that asks for nothing.

    Raises:
        InvalidRequest: it is not a filter; says where and what would be one.
    """
    if given is None:
        return None
    if not isinstance(given, dict):
        raise _invalid("filter", 'must be an object such as {"lang": "en", "year": {"$in": [2024, 2025]}}')
    if len(given) > MAX_KEYS:
        raise _invalid("filter", f"{MAX_KEYS} keys at most, got {len(given)}")
    required = tuple(
        frozenset(_facet(key, value) for value in _values(f"filter.{key}", accepted)) for key, accepted in given.items()
    )
    return Filter(required) if required else None


def _values(path: str, accepted: Any) -> list[Scalar]:
    if isinstance(accepted, Scalar):
        return [accepted]
    if not isinstance(accepted, dict):
        raise _invalid(path, 'must be a text, a number, true, false or {"$in": […]}')
    if set(accepted) != {"$in"}:
        unknown = next((operator for operator in accepted if operator != "$in"), "nothing")
        raise _invalid(path, f"knows the operator $in only, got {unknown}")
    values = accepted["$in"]
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_VALUES:
        raise _invalid(path, f"$in takes a list of 1 to {MAX_VALUES} values")
    if not all(isinstance(value, Scalar) for value in values):
        raise _invalid(path, "$in takes texts, numbers, true and false")
    return values


def _facet(key: str, value: Scalar) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one kind of number: 2024.0 is 2024
    # A number beyond 64 bits has no JSON of orjson's, and no metadata has one: the request's parser knows none.
    return hashlib.sha256(orjson.dumps([key, value if _fits(value) else str(value)])).hexdigest()[:FACET_CHARS]


def _fits(value: Scalar) -> bool:
    return not isinstance(value, int) or -(2**63) <= value < 2**64


def _invalid(path: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {problem}", param="filter")
