import asyncio

import pytest

from serve_apps.common.errors import UpstreamTimeout
from serve_apps.rag.stages import Stages
from tests.serve_apps.gateway.servers import PATIENCE_S
from tests.serve_apps.rag.recorded import Recorded


def test_a_stage_gives_what_its_work_gives_and_is_timed() -> None:
    observed = Recorded()

    async def check() -> None:
        assert (
            await Stages("docs", 1, observed).run("embed", PATIENCE_S, lambda: asyncio.sleep(0, "vector")) == "vector"
        )

    asyncio.run(check())
    assert observed.stages == [("docs", "embed")]


def test_a_stage_that_is_late_is_given_up() -> None:
    async def check() -> None:
        with pytest.raises(UpstreamTimeout, match=r"embed took longer than 0\.01 s"):
            await Stages("docs", 1, Recorded()).run("embed", 0.01, lambda: asyncio.sleep(PATIENCE_S))

    asyncio.run(check())


def test_a_full_stage_keeps_others_waiting_but_not_other_stages() -> None:
    async def check() -> None:
        stages, release = Stages("docs", 2, Recorded()), asyncio.Event()
        at_work = [asyncio.ensure_future(stages.run("embed", PATIENCE_S, release.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(UpstreamTimeout):
            await stages.run("embed", 0.01, lambda: asyncio.sleep(0))
        await stages.run("search", PATIENCE_S, lambda: asyncio.sleep(0))
        release.set()
        await asyncio.gather(*at_work)
        await stages.run("embed", PATIENCE_S, lambda: asyncio.sleep(0))

    asyncio.run(check())
