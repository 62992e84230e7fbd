"""chart-testing on every file of the chart's ci folder."""

import pytest

from tests.e2e.ct_install import FILES, OUTPUT, TIMEOUT_S, CtInstall


@pytest.mark.timeout(TIMEOUT_S)
def test_ct_installs_the_chart_with_every_file_in_ci(ct_begun: CtInstall) -> None:
    """`ct install` installs the chart with each file of its ci folder, has `helm test` ask it, and removes it."""
    printed = ct_begun.end()
    for file in FILES:
        assert file.name in printed, f"ct did not install {file.name}; its output is in {OUTPUT}"
