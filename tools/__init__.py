"""What builds, runs and checks the project on a developer's machine; nothing here is in an image."""
