"""The bodies of the paths that are our own: what pipelines and agents are sent, and what they answer.

Those who answer read requests by these; the gateway describes both in ``/openapi.json``.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_apps.common.config import Config

#: Documents in one request.
MAX_DOCUMENTS = 1000
#: A document's name, in characters.
MAX_DOCUMENT_ID_CHARS = 512


class Body(BaseModel):
    """A body, or a part of one; closed."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Error(Body):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


# Pipelines


class JsonDocument(Config):
    """A document in a JSON body."""

    id: Annotated[str, Field(min_length=1, max_length=MAX_DOCUMENT_ID_CHARS, pattern=r"^[^\x00-\x1f\x7f]+$")]
    """Its name, unique in the pipeline; slashes are fine."""
    text: Annotated[str, Field(min_length=1)]
    """Its content."""
    content_type: str = ""
    """``text/plain``, ``text/markdown`` or ``text/html``; empty: by the extension of ``id``, else plain text."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Kept with it and listed with it; a question's ``filter`` goes by it."""


class JsonDocuments(Config):
    """The JSON body of an upload."""

    documents: Annotated[list[JsonDocument], Field(min_length=1, max_length=MAX_DOCUMENTS)]


class Query(Body):
    """The body of a query."""

    question: Annotated[str, Field(min_length=1, pattern=r"\S")]
    """What is asked."""
    top_k: Annotated[int, Field(ge=1, le=100)] | None = None
    """Chunks put before the model; the pipeline's own number unless given."""
    filter: Any = None
    """Which documents may answer, by their metadata."""
    stream: bool = False
    """Answer as server-sent events: ``citations``, ``token`` …, ``done`` or ``error``."""


class Search(Body):
    """The body of a search: a question without an answer."""

    query: Annotated[str, Field(min_length=1, pattern=r"\S")]
    """What is looked for."""
    limit: Annotated[int, Field(ge=1, le=500)] = 10
    """Chunks at most."""
    filter: Any = None
    """As a query's."""


class IngestedDocument(Body):
    """What became of a document."""

    id: str
    chunks: int
    status: Literal["indexed", "unchanged", "failed"]
    error: Error | None = None


class IngestedDocuments(Body):
    """What became of each document, in the order they were sent."""

    documents: list[IngestedDocument]


class ListedDocument(Body):
    """A document in the store."""

    id: str
    chunks: int
    metadata: dict[str, Any]


class ListedDocuments(Body):
    """All of them."""

    documents: list[ListedDocument]


class DeletedDocument(Body):
    """A document that is gone."""

    id: str
    chunks: int
    status: Literal["deleted"]


class CitedFigure(Body):
    """A figure that the model saw."""

    page: int | None


class Citation(Body):
    """A chunk that an answer was made from."""

    index: int
    """Its number in the answer, from 1."""
    document: str
    chunk: int
    """Its place in the document, from 0."""
    score: float | None
    quote: str
    """How it begins."""
    page: int | None = None
    heading: str | None = None
    figures: list[CitedFigure] | None = None


class FoundChunk(Citation):
    """A chunk that a search found."""

    text: str


class SearchAnswer(Body):
    """The best chunks first."""

    results: list[FoundChunk]
    degraded: list[str]
    """The parts of the pipeline that did not take part."""


class QueryAnswer(Body):
    """An answer and what it was made from."""

    answer: str
    citations: list[Citation]
    degraded: list[str]
    """The parts of the pipeline that did not take part."""
    usage: dict[str, Any] | None
    """The model's."""


# Agents


class RunRequest(BaseModel):
    """A conversation for an agent to work on; what else a chat completion may have is the model's business."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    """As a chat completion's; the last is the user's."""


class Run(Body):
    """How a run is going, or how it ended."""

    id: str
    object: Literal["agent.run"]
    agent: str
    status: Literal["in_progress", "completed", "failed"]
    created: int
    """Unix time, in seconds."""
    steps: list[dict[str, Any]]
    """The calls of tools so far."""
    response: dict[str, Any] | None
    """The chat completion, once there is one."""
    error: Error | None


class DeletedRun(Body):
    """A run that is gone."""

    id: str
    object: Literal["agent.run"]
    deleted: Literal[True]
