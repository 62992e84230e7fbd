"""What the chart's tests share."""

from collections.abc import Iterator

import pytest

from tools.kube_apiserver import ApiServer, api_server


@pytest.fixture(scope="package")
def kube_apiserver() -> Iterator[ApiServer]:
    """An API server that knows the custom resources; one for all tests, since it takes some seconds to start."""
    with api_server() as server:
        yield server
