from typing import Any

import pytest

from tests.tools.plan.releases import model
from tools.plan import table
from tools.plan.start import start
from tools.plan.table import Instance

TABLE = table.read()
FAST, SLOW = TABLE.instances["g6e.48xlarge"], TABLE.instances["g6e.xlarge"]


def seconds(stage: str, instance: Instance = FAST, **more: Any) -> tuple[float, float]:
    """What a stage takes, cold and prepared."""
    (found,) = (one for one in start(model(**more), 16, instance, TABLE) if one.stage == stage)
    return found.cold_s, found.prepared_s


def test_all_stages_are_there_in_their_order() -> None:
    stages = [one.stage for one in start(model(), 16, FAST, TABLE)]
    assert stages == ["node", "image", "process", "weights", "compile", "graphs"]


def test_no_stage_takes_longer_prepared() -> None:
    for size_gb in (0.3, 16, 800):
        for instance in (FAST, SLOW, None):
            assert all(one.prepared_s <= one.cold_s for one in start(model(), size_gb, instance, TABLE))


def test_eager_engines_compile_nothing() -> None:
    stages = [one.stage for one in start(model(engine={"enforce_eager": True}), 16, FAST, TABLE)]
    assert stages == ["node", "image", "process", "weights"]


@pytest.mark.parametrize(("scheme", "gb_per_s"), [("hf", 0.3), ("s3", 0.66), ("pvc", 0.33), ("oci", 0.05)])
def test_weights_come_as_fast_as_their_source_gives_them(scheme: str, gb_per_s: float) -> None:
    assert seconds("weights", source=f"{scheme}://org/Chat-8B") == pytest.approx((16 / gb_per_s, 16 / 3.3))


def test_and_never_faster_than_the_nodes_network() -> None:
    cold_s, prepared_s = seconds("weights", source="s3://models/Chat-8B", instance=SLOW)
    assert cold_s == prepared_s == pytest.approx(16 / (2.5 / 8))
