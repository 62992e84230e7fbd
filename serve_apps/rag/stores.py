"""Which vector store a pipeline's settings ask for."""

from collections.abc import Callable

from serve_apps.rag.config import VectorStore as Settings
from serve_apps.rag.embedded import Embedded
from serve_apps.rag.milvus import Milvus
from serve_apps.rag.vector_store import VectorStore


def open_store(settings: Settings, collection: str, on_call: Callable[[bool], None] = lambda _: None) -> VectorStore:
    """The collection of that name, in a file or on a Milvus server. It connects when it is first asked.

    ``on_call`` is told of each call of a server whether it was answered.
    """
    return Embedded(settings, collection) if settings.embedded else Milvus(settings, collection, on_call)
