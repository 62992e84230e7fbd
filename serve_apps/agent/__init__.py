"""Agents: a model that calls tools until it has an answer, within limits, published as a model of its own."""
