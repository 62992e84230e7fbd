"""`ct install` on every file of the chart's ci folder, begun well before it is looked at: it is mostly waiting."""

import subprocess

from tests.e2e.evidence import FOLDER
from tests.e2e.preparation import NAMESPACE
from tools.cluster.target import Target
from tools.demo.rendered import CHART, REPOSITORY

#: For one install; each is a RayService of its own, and `helm test` asks it.
INSTALL_TIMEOUT_S = 600
FILES = sorted((CHART / "ci").glob("*-values.yaml"))
#: For all of them, and for their ends.
TIMEOUT_S = INSTALL_TIMEOUT_S * 2 * len(FILES)
OUTPUT = FOLDER / "ct-install.txt"


def begin(cluster: Target) -> subprocess.Popen[bytes]:
    """Begin it in the namespace of the main release, which has gone."""
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    command = ["ct", "install", "--config=ct.yaml", f"--namespace={NAMESPACE}"]
    arguments = ["--release-label=app.kubernetes.io/instance", f"--helm-extra-args=--timeout {INSTALL_TIMEOUT_S}s"]
    if cluster.kind == "ours":
        arguments.append(
            "--helm-extra-set-args=--set-string workerGroups.cpu-models.nodeSelector.llm-serving/models=true"
        )
    with OUTPUT.open("w") as output:
        return subprocess.Popen(
            [*command, *arguments],
            cwd=REPOSITORY,
            env=cluster.environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
