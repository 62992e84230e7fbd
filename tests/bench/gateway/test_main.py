"""A real run, as short as it can be, of two systems that need nothing but this machine."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from bench.gateway.results import KEYS
from tools.demo.rendered import REPOSITORY


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.gateway", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_a_quick_run_measures_two_systems_and_writes_three_files(tmp_path: Path) -> None:
    done = run("--quick", "--systems", "direct,haproxy", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "round 1 of 1: HAProxy" in done.stderr
    document = json.loads((tmp_path / "gateway.json").read_text())
    assert set(KEYS) <= document.keys()
    assert document["features_on"].keys() == KEYS.keys()
    direct, haproxy = (document["systems"][name]["measures"] for name in ("direct", "haproxy"))
    assert direct["cpu_us_per_token"]["median"] == 0
    for measure in ("cpu_us_per_token", "ttft_ms_p50_c1", "unary_per_s", "prompt_cpu_ns_per_byte"):
        assert haproxy[measure]["median"] > 0
    assert document["memory_mb"]["haproxy"]["path"] > 0
    assert (document["failures"], document["real"], document["rounds"]) == ({}, {}, 1)
    assert (tmp_path / "gateway.md").read_text() in done.stdout
    assert (tmp_path / "gateway.svg").read_text().startswith("<svg")


def test_a_run_that_is_stopped_writes_its_complete_rounds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gateway", "--quick", "--rounds", "9", "--systems", "direct,haproxy"]
    command += ["--output", str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line)
            if "round 2 of 9" in line:
                process.send_signal(signal.SIGINT)
                break
        process.stderr.read()
    assert process.returncode == 130, said
    document = json.loads((tmp_path / "gateway.json").read_text())
    assert document["stopped"]
    assert 1 <= document["rounds"] < 9
    assert len(document["systems"]["haproxy"]["measures"]["unary_per_s"]["rounds"]) == document["rounds"]


def test_a_system_that_does_not_exist_is_refused_with_those_that_do() -> None:
    done = run("--systems", "direct,nginx")
    assert done.returncode == 2
    assert (
        "no such system: nginx; there are direct, haproxy, vllm-router, litellm, stock, ours, features" in done.stderr
    )


def test_a_report_without_results_says_what_is_missing(tmp_path: Path) -> None:
    done = run("--report", "--output", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("bench: ")
    assert "gateway.json" in done.stderr
