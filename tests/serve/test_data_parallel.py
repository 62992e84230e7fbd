"""Data parallel ranks are a gang of Serve's: they come and go together, and requests reach them as any replica."""

from concurrent.futures import ThreadPoolExecutor

from tests.serve.conftest import Service
from tests.serve.waiting import until

DEPLOYMENT = "DataParallelVLLMServer:ranks"


def test_ranks_come_together_and_share_the_requests(service: Service) -> None:
    assert not service.cluster.live_pids("ranks", DEPLOYMENT)
    with ThreadPoolExecutor(4) as callers:
        answers = list(callers.map(lambda _: service.chat("ranks"), range(4)))
    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
    assert len(until(lambda: service.cluster.live_pids("ranks", DEPLOYMENT), lambda seen: len(seen) == 2)) == 2
    # Without a request they go as they came.
    until(lambda: service.cluster.live_pids("ranks", DEPLOYMENT), lambda seen: not seen)
