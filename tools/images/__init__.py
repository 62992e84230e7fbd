"""The container images: built by ``make images`` for a registry, or by buildah alone for the test cluster."""
