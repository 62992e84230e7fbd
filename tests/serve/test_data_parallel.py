"""Data parallel ranks are a gang of Serve's: they come and go together, and requests reach them as any replica."""

from tests.serve.conftest import Service
from tests.serve.test_autoscaling import load
from tests.serve.waiting import until

DEPLOYMENT = "DataParallelVLLMServer:ranks"


def test_ranks_come_together_and_share_the_requests(service: Service) -> None:
    def ranks() -> list[int]:
        return service.cluster.live_pids("ranks", DEPLOYMENT)

    assert not ranks()
    with load(service, clients=4, model="ranks") as statuses:
        until(ranks, lambda seen: len(seen) == 2)
    assert set(statuses) == {200}
    # Without a request they go as they came.
    until(ranks, lambda seen: not seen)
