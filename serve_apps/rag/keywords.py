"""Keyword search (BM25) in memory, by tantivy, whose analyzers Milvus uses too.

Of what keeps an index that changes with every document, compared on Cranfield's abstracts with 10,800 chunks in the
index (docs/rag.md has the table), tantivy was as good as the others, took a millisecond a question and took documents
one by one; SQLite's FTS5 took a hundred, and bm25s has to be built anew at each change.
"""

import re
from collections.abc import Iterable, Set
from typing import Any

import tantivy

from serve_apps.rag.config import Language
from serve_apps.rag.filters import Filter

#: Words of a question that are looked up; the rest of a longer one adds time, not sense.
MAX_TERMS = 64

#: The writer's memory, in bytes. It exists only between the first change and the next search.
_WRITER_BYTES = 16_000_000

#: A longer word is no word (base64, a URL's query), in characters.
_LONGEST_WORD = 60

#: Scripts that put no space between words: each of their characters is a word of its own, as for Milvus.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


class KeywordIndex:
    """Chunks by row number, findable by their words. For one thread at a time."""

    def __init__(self, language: Language) -> None:
        fields = tantivy.SchemaBuilder()
        fields.add_integer_field("row", fast=True)
        fields.add_integer_field("document", indexed=True)
        fields.add_text_field("text", tokenizer_name="words", index_option="freq")
        fields.add_text_field("facets", tokenizer_name="raw", index_option="basic")
        self._schema = fields.build()
        self._index = tantivy.Index(self._schema)
        self._analyzer = _analyzer(language)
        self._index.register_tokenizer("words", self._analyzer)
        self._writer: tantivy.IndexWriter | None = None

    def add(self, row: int, document: int, passage: str, facets: Iterable[str]) -> None:
        """Add a chunk of the document with this number."""
        self._writing().add_document(
            tantivy.Document(row=row, document=document, text=_spaced(passage), facets=list(facets))
        )

    def remove(self, document: int) -> None:
        """Remove a document's chunks."""
        self._writing().delete_documents_by_term("document", document)

    def commit(self) -> None:
        """Make changes findable. The writer goes: hundreds of tenants' indexes would hold its memory for nothing."""
        if self._writer is not None:
            self._writer.commit()
            self._writer.wait_merging_threads()
            self._writer = None
            self._index.reload()

    def search(self, text: str, limit: int, where: Filter | None) -> list[tuple[int, float]]:
        """The rows that share words with ``text``, best first, with their BM25 score."""
        self.commit()
        words = dict.fromkeys(self._analyzer.analyze(_spaced(text)))  # without a word's repetitions
        if not words:
            return []
        query = self._any_of("text", list(words)[:MAX_TERMS])
        if where is not None:
            must = [(tantivy.Occur.Must, self._one_of(accepted)) for accepted in where.required]
            query = tantivy.Query.boolean_query([(tantivy.Occur.Must, query), *must])
        searcher = self._index.searcher()
        hits = searcher.search(query, limit, count=False).hits
        rows: list[Any] = searcher.fast_field_values("row", [address for _, address in hits])
        return [(int(row), float(score)) for row, (score, _) in zip(rows, hits, strict=True)]

    def _any_of(self, field: str, terms: list[str]) -> tantivy.Query:
        each = (tantivy.Query.term_query(self._schema, field, term, index_option="freq") for term in terms)
        return tantivy.Query.boolean_query([(tantivy.Occur.Should, query) for query in each])

    def _one_of(self, facets: Set[str]) -> tantivy.Query:
        # A constant of nothing: a filter must not change the order of what it lets through.
        return tantivy.Query.const_score_query(
            tantivy.Query.term_set_query(self._schema, "facets", sorted(facets)), 0.0
        )

    def _writing(self) -> tantivy.IndexWriter:
        if self._writer is None:
            self._writer = self._index.writer(_WRITER_BYTES, num_threads=1)
        return self._writer


def _analyzer(language: Language) -> tantivy.TextAnalyzer:
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    filters = [tantivy.Filter.remove_long(_LONGEST_WORD), tantivy.Filter.lowercase(), tantivy.Filter.ascii_fold()]
    if language != "none":
        filters.append(tantivy.Filter.stemmer(language))
    for each in filters:
        builder = builder.filter(each)
    return builder.build()


def _spaced(text: str) -> str:
    return _UNSPACED.sub(r" \g<0> ", text)
