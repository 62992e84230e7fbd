"""How good and how quick retrieval is, through the running RAG app."""
