from serve_apps.rag.config import VectorStore
from serve_apps.rag.embedded import Embedded
from serve_apps.rag.milvus import Milvus
from serve_apps.rag.stores import open_store


def test_a_file_is_embedded_and_a_url_is_milvus() -> None:
    assert isinstance(open_store(VectorStore(uri="docs.db"), "docs"), Embedded)
    assert isinstance(open_store(VectorStore(uri="http://milvus:19530"), "docs"), Milvus)
