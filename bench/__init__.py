"""Benchmarks: every figure in the docs comes from a program here."""
