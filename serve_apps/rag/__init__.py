"""Retrieval-augmented generation: documents in, cited answers out. A client of the gateway."""
