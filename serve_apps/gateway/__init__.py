"""The only way in: authenticates, chooses the upstream, relays bytes."""
