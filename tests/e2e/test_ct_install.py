"""chart-testing on every file of the chart's ci folder, which has run beside the step before this one."""

import subprocess

from tests.e2e.charttesting import FILES, OUTPUT, TIMEOUT_S


def test_ct_installs_the_chart_with_every_file_in_ci(ct_begun: subprocess.Popen[bytes]) -> None:
    """`ct install` installs the chart with each file of its ci folder, has `helm test` ask it, and removes it."""
    code = ct_begun.wait(TIMEOUT_S)
    printed = OUTPUT.read_text()
    assert code == 0, f"{ct_begun.args!r}: the whole output is in {OUTPUT}\n{printed[-4000:]}"
    for file in FILES:
        assert file.name in printed, f"ct did not install {file.name}; its output is in {OUTPUT}"
