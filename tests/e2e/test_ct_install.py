"""chart-testing on every file of the chart's ci folder."""

import subprocess

from tests.e2e.evidence import FOLDER
from tests.e2e.preparation import NAMESPACE
from tools.cluster.target import Target
from tools.demo.rendered import CHART, REPOSITORY

#: For one install; each is a RayService of its own, and `helm test` asks it.
INSTALL_TIMEOUT_S = 600
FILES = sorted((CHART / "ci").glob("*-values.yaml"))
OUTPUT = FOLDER / "ct-install.txt"


def test_ct_installs_the_chart_with_every_file_in_ci(cluster: Target) -> None:
    """`ct install` installs the chart with each file of its ci folder, has `helm test` ask it, and removes it."""
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    command = ["ct", "install", "--config=ct.yaml", f"--namespace={NAMESPACE}"]
    arguments = ["--release-label=app.kubernetes.io/instance", f"--helm-extra-args=--timeout {INSTALL_TIMEOUT_S}s"]
    if cluster.kind == "ours":
        arguments.append(
            "--helm-extra-set-args=--set-string workerGroups.cpu-models.nodeSelector.llm-serving/models=true"
        )
    with OUTPUT.open("w") as output:
        done = subprocess.run(
            [*command, *arguments],
            cwd=REPOSITORY,
            env=cluster.environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=INSTALL_TIMEOUT_S * 2 * len(FILES),
        )
    printed = OUTPUT.read_text()
    assert done.returncode == 0, f"{' '.join(command)}: the whole output is in {OUTPUT}\n{printed[-4000:]}"
    for file in FILES:
        assert file.name in printed, f"ct did not install {file.name}; its output is in {OUTPUT}"
