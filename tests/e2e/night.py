"""A batch on a cluster that KubeRay makes for it, begun well before it is looked at: its own time is mostly waiting."""

from tests.e2e.release import Release, Running
from tests.e2e.test_batches import jsonl, lines

#: The documents' claim, as the pods with the gateway and the pipelines see it.
CLAIM = "/var/lib/llm-serving"
FOLDER = f"{CLAIM}/nights"
#: For every upgrade while it runs: without them Helm takes the job away.
NIGHT = (
    "batch.jobs.night.model=embedder",
    "batch.jobs.night.input=pvc://pipelines-data/nights/in.jsonl",
    "batch.jobs.night.output=pvc://pipelines-data/nights/out",
    "batch.jobs.night.concurrency=8",
)


def begin(release: Release) -> Running:
    """Write the job's lines and begin it; what ran of the release before."""
    before = release.running()
    program = f"import os, sys; os.makedirs('{FOLDER}', exist_ok=True)"
    program += f"; open('{FOLDER}/in.jsonl', 'w').write(sys.stdin.read())"
    requests = jsonl(lines("/v1/embeddings", model="embedder", input="a cat on a mat"))
    release.kubectl("exec", "--stdin", release.pod("cpu"), *_python(program), input=requests)
    release.upgrade(*NIGHT)
    return before


def written(release: Release, file: str) -> str:
    """A file of the job's output."""
    return release.kubectl("exec", release.pod("cpu"), *_python(f"print(open('{FOLDER}/out/{file}').read(), end='')"))


def _python(program: str) -> tuple[str, ...]:
    """What `kubectl exec` runs for a program in Python."""
    return ("--container=ray", "--", "python", "-c", program)
