"""A test collection: documents, questions, and which documents answer which question."""

import html
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: A judgement's ``position`` from 1 (answers it whole) to this is relevant; Cranfield's 5 is "of no interest".
LEAST_RELEVANT = 4


class CollectionError(Exception):
    """The folder holds no collection; the message says what is missing."""


@dataclass(frozen=True)
class Collection:
    """Documents and questions by id."""

    documents: Mapping[str, str]
    """As HTML: the title is a heading."""
    questions: Mapping[str, str]
    """Only those that have an answer."""
    relevant: Mapping[str, frozenset[str]]
    """For each question, the documents that answer it."""


def read(folder: Path) -> Collection:
    """The collection in ``folder``: docs.json, queries.json and qrels.json, in Cranfield's format.

    Raises:
        CollectionError: a file is missing or has another format.
    """
    try:
        documents = {
            str(each["id"]): _document(each.get("title") or "", each.get("body") or "")
            for each in _json(folder / "docs.json")
            if (each.get("title") or "").strip() or (each.get("body") or "").strip()
        }
        questions = {str(each["query number"]): str(each["query"]) for each in _json(folder / "queries.json")}
        relevant = defaultdict(set)
        for judgement in _json(folder / "qrels.json"):
            if 1 <= int(judgement["position"]) <= LEAST_RELEVANT:
                relevant[str(judgement["query_num"])].add(str(judgement["id"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CollectionError(
            f"{folder}: not a collection like Cranfield's ({type(error).__name__}: {error}); it needs docs.json "
            "(id, title, body), queries.json (query number, query) and qrels.json (query_num, id, position)"
        ) from error
    asked = {number: text for number, text in questions.items() if relevant.get(number)}
    if not asked or not documents:
        raise CollectionError(f"{folder}: no question has a relevant document; compare the ids in the three files")
    return Collection(documents, asked, {number: frozenset(relevant[number]) for number in asked})


def _json(file: Path) -> Any:
    return json.loads(file.read_text())


def _document(title: str, body: str) -> str:
    paragraphs = "".join(f"<p>{html.escape(part)}</p>" for part in body.split("\n\n") if part.strip())
    return f"<h1>{html.escape(title)}</h1>{paragraphs or f'<p>{html.escape(title)}</p>'}"
