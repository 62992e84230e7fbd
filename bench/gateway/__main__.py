"""``python -m bench.gateway``: compare the gateway with others, and write bench/results/gateway.{json,md,svg}."""

import argparse
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from bench.gateway import measures, ray_systems, real, report, results, systems
from bench.gateway.machine import machine, versions
from bench.gateway.measures import Client, Effort, Failed
from bench.gateway.rounds import Rounds, say
from bench.gateway.stages import GROUPS, Measure, wanted
from bench.gateway.standstill import others_still
from bench.gateway.systems import Backend, CannotStart, System, memory_of
from tools.demo.cluster import DeployFailed
from tools.demo.rendered import REPOSITORY
from tools.ports import free_port

RESULTS = REPOSITORY / "bench" / "results"
CHOOSING = REPOSITORY / "docs" / "choosing.md"
COUNTED = """\
CPU is the run time that the scheduler accounts to threads (`/proc/<pid>/task/*/schedstat`) from the first request to
the end of the last, of every process between client and model: for a proxy its process and children; for Ray its
HAProxy or proxy actor ("of which proxy") and every replica that is no model (gateway, ingress); for the gateway with
features Redis, too. The model itself is in no system's figure; what it costs there, and the rest of Ray (raylet, GCS,
controller, dashboard, agents), which runs with and without requests, are columns of their own. Client, model and
systems share the machine and loopback. What is compared is up together, and nothing else, since idle Ray nodes take
cores, too: the gateway and the routers; vllm-router again with the gateway's features on; Ray Serve and the gateway;
Ray Serve again with features on. Of two Ray nodes, the one that is not measured stands still (SIGSTOP). In each round
every system is measured once, and each round begins with another one. Ratios and differences are medians over the
rounds of the two systems' figures in the same round.

The load of the CPU and c=32 columns: 32 connections, each with one stream of 100 tokens after another, a step of 10 ms
between two tokens for all streams at once, as an engine's batches have it. TTFT is the time to the first event. Unary
is 16 connections; long prompts are 220 KB, 2 connections. The ceiling is the token rate at which the p99 of the TTFT of
38 probes per second is twice that of the same system without other load, in three tries of five. LiteLLM checks one
key, since it does not start without; the others, and the gateway without features, check none. The gateway has a
replica for each core, as vllm-router has a thread. Memory is the proportional set size after the rounds.
"""


def main() -> int:
    """Run, or only write the report anew; the exit code."""
    arguments = _arguments()
    for ending in (signal.SIGTERM, signal.SIGHUP):  # else what was started stays
        signal.signal(ending, _interrupt)
    try:
        if arguments.report:
            document = json.loads((arguments.output / "gateway.json").read_text())
            write(document, arguments.output)
            return 0
        if not arguments.quick and os.getloadavg()[0] > report.QUIET_LOAD:
            say(f"WARNING: the load is {os.getloadavg()[0]:.1f}; figures of a busy machine are not worth keeping")
        there = arguments.output / "gateway.json"
        earlier = json.loads(there.read_text()) if there.exists() else None  # before an hour is spent
        document = run(arguments)
        if earlier is not None:
            document = results.completed(document, earlier)
            for part, what in (("systems", "the mock model"), ("real", "SmolLM2")):
                if earlier[part] and not document[part]:
                    say(f"WARNING: what the report had of {what} goes: it is of another machine or of other versions")
    except (CannotStart, DeployFailed, Failed, ValueError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
        return 130
    write(document, arguments.output)
    print(report.markdown(document))
    say(f"written to {arguments.output}")
    if document["stopped"]:
        return 130
    return 1 if document["failures"] else 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-gateway", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round without a real model, to see that it works"
    )
    parser.add_argument("--rounds", type=int, help="rounds (5; 1 with --quick)")
    parser.add_argument(
        "--systems", help=f"some of {', '.join(GROUPS)}; all unless given", type=_groups, default=GROUPS
    )
    kept = "what the report has of the other, of this machine and these versions, stays in it"
    parser.add_argument("--no-real", dest="real", action="store_false", help=f"the mock model only; {kept}")
    parser.add_argument("--no-mock", dest="mock", action="store_false", help=f"SmolLM2 only; {kept}")
    parser.add_argument("--output", type=Path, help="the folder to write to (bench/results; with --quick one in /tmp)")
    parser.add_argument(
        "--report", action="store_true", help="write .md, .svg and docs/choosing.md anew from the .json"
    )
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.quick else report.WANTED_ROUNDS)
    if arguments.quick:
        arguments.real = False
    if arguments.output is None:
        arguments.output = Path(tempfile.mkdtemp(prefix="bench-gateway-")) if arguments.quick else RESULTS
    return arguments


def _groups(text: str) -> tuple[str, ...]:
    wanted = tuple(text.split(","))
    if unknown := [one for one in wanted if one not in GROUPS]:
        raise argparse.ArgumentTypeError(f"no such system: {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    return wanted


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; the document. Of a run that is stopped, what its complete rounds have.

    Raises:
        KeyboardInterrupt: it was stopped before a round was complete.
    """
    before = machine()
    mock, on_model = Rounds(), Rounds()
    titles: dict[str, str] = {}
    memory: dict[str, dict[str, Any]] = {}
    stopped = False
    try:
        with measures.client() as client:
            if arguments.mock:
                mock_rounds(client, arguments, mock, titles, memory)
            if arguments.real:
                real_rounds(client, arguments.rounds, on_model, titles, memory)
    except KeyboardInterrupt:
        if not mock.complete and not on_model.complete:
            raise
        stopped = True
    return {
        **results.keys(mock.figures, on_model.figures, "ours"),
        "features_on": results.keys(mock.figures, on_model.figures, "features"),
        "model_on_ray": {name: results.beside_router(mock.figures, name) for name in ("ours", "features")},
        "systems": results.tables(mock.figures, titles),
        "real": results.tables(on_model.figures, {name.removeprefix("real:"): title for name, title in titles.items()}),
        "memory_mb": memory,
        "failures": mock.failures | {f"real:{name}": problem for name, problem in on_model.failures.items()},
        "stopped": stopped,
        "rounds": min((rounds.complete for rounds in (mock, on_model) if rounds.figures), default=0),
        "machine": before,
        "versions": versions(),
        "command": shlex.join(["python", "-m", "bench.gateway", *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "counted": COUNTED,
    }


def mock_rounds(
    client: Client, arguments: argparse.Namespace, rounds: Rounds, titles: dict[str, str], memory: dict[str, Any]
) -> None:
    """Measure every system before the mock model in turns, stage by stage."""
    effort = measures.QUICK if arguments.quick else measures.Effort()
    for stage, groups in wanted(arguments.systems):
        with ExitStack() as running:
            behind = running.enter_context(systems.backend())
            up: list[System] = []
            for group in groups:
                say(f"starting {group}")
                up += start(running, group, behind)
            planned = stage.planned(up)
            compared = [system for system, _ in planned]
            titles |= {system.name: system.title for system in compared}
            rounds.prepare(compared, lambda system: measures.warm_up(client, system))
            figures = partial(_figures, client, effort, {system.name: own for system, own in planned}, compared)
            rounds.run(compared, arguments.rounds, figures)
            for system in compared:
                memory[system.name] = {"title": system.title, **memory_of(system)}


def _figures(
    client: Client,
    effort: Effort,
    chosen: dict[str, tuple[Measure, ...]],
    compared: Sequence[System],
    system: System,
) -> dict[str, float]:
    with others_still(system, compared):
        return {name: value for one in chosen[system.name] for name, value in one(client, system, effort).items()}


def start(running: ExitStack, group: str, behind: Backend) -> list[System]:
    """Start one group of systems; ``running`` ends them."""
    if group == "stock":
        return running.enter_context(ray_systems.stock())
    if group in ("ours", "features"):
        return running.enter_context(ray_systems.ours(behind, features=group == "features"))
    single = {
        "direct": systems.direct,
        "haproxy": systems.haproxy,
        "vllm-router": systems.vllm_router,
        "litellm": systems.litellm,
    }
    return [running.enter_context(single[group](behind))]


def real_rounds(client: Client, count: int, rounds: Rounds, titles: dict[str, str], memory: dict[str, Any]) -> None:
    """SmolLM2: the bare server in turns with the gateway, first as it is, then with its features on."""
    say("starting vllm serve, and the gateway with SmolLM2 on Ray")
    variables = ray_systems.rendered(free_port()).environment
    with real.bare(variables) as bare, real.on_ray(bare) as on_ray, systems.redis() as (url, _):
        for redis_url in (None, url):
            compared = [bare, *on_ray.deploy(redis_url)]
            if redis_url is not None:
                compared[0] = System(
                    "bare-features", f"{bare.title}, beside features", bare.port, bare.processes, bare.model
                )
            titles |= {f"real:{system.name}": system.title for system in compared}
            rounds.prepare(compared, lambda system: real.warm_up(client, system))
            rounds.run(compared, count, lambda system: real.measure(client, system))
            for system in compared if redis_url is None else compared[1:]:
                memory[f"real:{system.name}"] = {"title": f"SmolLM2: {system.title}", **memory_of(system)}


def write(document: dict[str, Any], output: Path) -> None:
    """Write the three files; where they are the project's own, docs/choosing.md, too."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "gateway.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    (output / "gateway.md").write_text(report.markdown(document))
    (output / "gateway.svg").write_text(report.svg(document))
    if output == RESULTS:
        CHOOSING.write_text(report.with_table(CHOOSING.read_text(), document))


if __name__ == "__main__":
    sys.exit(main())
