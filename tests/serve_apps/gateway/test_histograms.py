from serve_apps.common.metrics import Metric
from serve_apps.gateway.histograms import Histogram
from tests.serve_apps.gateway.recorded_metrics import RecordedMetrics

METRIC = Metric("Histogram", "wait_seconds", "How long.", ("model",), (0.5, 1, 60))
CHAT, BIG = (("model", "chat"),), (("model", "big"),)


def told(*values: float) -> RecordedMetrics:
    """What Ray is told of a histogram with these values."""
    recorded = RecordedMetrics()
    histogram = Histogram(METRIC, recorded.module())
    for value in values:
        histogram.observe(value, CHAT)
    for call in histogram.due(all_of_them=False):
        call()
    return recorded


def test_a_bucket_has_all_values_up_to_its_bound() -> None:
    recorded = told(0.1, 0.5, 0.6, 1.0, 61.0)
    assert recorded.values("wait_seconds_bucket") == [2, 4, 4, 5]
    assert [tags["le"] for tags in recorded.tags("wait_seconds_bucket")] == ["0.5", "1.0", "60.0", "+Inf"]
    assert {tags["model"] for tags in recorded.tags("wait_seconds_bucket")} == {"chat"}


def test_sum_and_count_are_exact() -> None:
    recorded = told(0.25, 2.5)
    assert recorded.values("wait_seconds_sum") == [2.75]
    assert recorded.values("wait_seconds_count") == [2]
    assert recorded.tags("wait_seconds_count") == [{"model": "chat"}]


def test_what_was_told_is_told_again_when_it_changes_and_when_all_are() -> None:
    recorded = RecordedMetrics()
    histogram = Histogram(METRIC, recorded.module())

    def counts(*, all_of_them: bool = False) -> list[float]:
        before = len(recorded.values("wait_seconds_count"))
        for call in histogram.due(all_of_them=all_of_them):
            call()
        return recorded.values("wait_seconds_count")[before:]

    histogram.observe(0.1, CHAT)
    histogram.observe(0.1, BIG)
    assert counts() == [1, 1]
    assert counts() == []
    histogram.observe(0.2, BIG)
    assert counts() == [2]
    assert counts(all_of_them=True) == [1, 2]
