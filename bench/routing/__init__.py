"""Replays a trace of prompts against replicas with prefix caches, under the gateway's own choice and simpler ones."""
