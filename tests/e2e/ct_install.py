"""chart-testing on every file of the chart's ci folder, as a program that goes on by itself."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from tests.e2e.evidence import FOLDER
from tests.e2e.preparation import NAMESPACE
from tools.cluster.target import Target
from tools.demo.rendered import CHART, REPOSITORY

#: For one install; each is a RayService of its own, and `helm test` asks it.
INSTALL_TIMEOUT_S = 300
FILES = sorted((CHART / "ci").glob("*-values.yaml"))
#: For all of them.
TIMEOUT_S = INSTALL_TIMEOUT_S * 2 * len(FILES)
OUTPUT = FOLDER / "ct-install.txt"
#: The label of the node with vLLM's image.
MODELS_NODE = "workerGroups.cpu-models.nodeSelector.llm-serving/models=true"


@dataclass(frozen=True)
class CtInstall:
    """One ``ct install`` that runs, and writes to ``OUTPUT``."""

    process: subprocess.Popen[bytes]

    @classmethod
    @contextmanager
    def begin(cls, cluster: Target) -> Iterator[Self]:
        """Begin it; it does not outlive the block."""
        OUTPUT.parent.mkdir(parents=True, exist_ok=True)
        command = ["ct", "install", "--config=ct.yaml", f"--namespace={NAMESPACE}"]
        command += ["--release-label=app.kubernetes.io/instance", f"--helm-extra-args=--timeout {INSTALL_TIMEOUT_S}s"]
        if cluster.kind == "ours":
            command.append(f"--helm-extra-set-args=--set-string {MODELS_NODE}")
        environment = cluster.environment()
        with OUTPUT.open("w") as output:
            process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield cls(process)
        finally:
            process.kill()
            process.wait()

    def end(self) -> str:
        """Wait for its end; what it printed.

        Raises:
            AssertionError: It failed.
        """
        code = self.process.wait(TIMEOUT_S - 30)
        printed = OUTPUT.read_text()
        assert code == 0, f"ct install: the whole output is in {OUTPUT}\n{printed[-4000:]}"
        return printed
