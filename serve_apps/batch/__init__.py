"""Batches: OpenAI's /v1/files and /v1/batches, and the same for a file from the command line."""
