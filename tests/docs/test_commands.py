"""Every command in the documents works: it is run here, or a named test runs what it does."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.docs.markdown import FILES, REPOSITORY, commands, name
from tools.gotools import helm

COMMANDS = sorted({shlex.join(words): words for file in FILES for words in commands(file)}.items())
#: What is too slow, or needs a cluster or a builder: where the same is proven.
PROVEN_BY = {
    r"make demo( ASK=.*)?( EXIT=1)?": "tests/demo/test_demo.py::test_the_answer_is_printed_with_a_source_from_the_docs",
    r"make demo FILE=values/agent\.yaml": "tests/demo/test_demo.py::test_the_agent_of_the_preset_comes_to_an_end",
    r"make environment": "tests/tools/test_environment.py::test_an_environment_is_made_once",
    r"make images.*": "tests/tools/images/test_main.py::test_images_are_built_from_their_lock",
    r".* -m tools\.images --local .*": "tests/tools/images/test_main.py::test_local_ones_need_no_builder_with_a_daemon",
    r"make packages": "tests/tools/cluster/test_requirements.py::test_missing_packages_are_installed",
    r"(make cluster|export KUBECONFIG=.*|kubectl get pods --all-namespaces)": (
        "tests/e2e/test_cluster.py::test_a_second_start_changes_nothing"
    ),
    r"make cluster-down": "tests/tools/cluster/test_main.py::test_what_stays_after_the_end_is_named",
    r".* -m tools\.cluster load .*": (
        "tests/tools/cluster/test_loading.py::test_an_image_goes_to_the_nodes_that_lack_that_very_one"
    ),
    r".* -m tools\.cluster (lose|join) node2": "tests/e2e/test_cluster.py::test_a_node_is_lost_and_comes_back",
    r"make doctor .*": "tests/tools/doctor/test_main.py::test_it_says_what_a_release_lacks",
    r"make release VERSION=.*": (
        "tests/tools/test_release.py::test_the_package_and_the_notes_have_what_changed_in_that_version"
    ),
    r"(cosign|gpg|helm verify) .*": "tests/test_ci.py::test_the_documents_verify_what_this_workflow_signs",
    r".* -m tools\.prometheus\.plot .*": "tests/tools/prometheus/test_proof.py::test_panels_are_drawn",
    r"make lock": "tests/tools/test_lock.py::test_a_lock_has_all_that_its_intent_names",
    r"make bench-gateway( ARGS=.*)?": (
        "tests/bench/gateway/test_main.py::test_a_quick_run_measures_two_systems_and_writes_three_files"
    ),
    r"make bench-batch( ARGS=.*)?": "tests/bench/batch/test_main.py::test_a_short_run_leads_to_two_files",
    r"make bench-rag DATA=.*": "tests/bench/rag/test_main.py::test_a_collection_leads_to_three_files",
    r"make bench-routing TRACE=.*": "tests/bench/routing/test_main.py::test_a_trace_leads_to_three_files",
    # Rewrites files; that it would change nothing is tested.
    r"make golden": "tests/chart/test_presets.py::test_it_renders_as_checked_in",
    r"make generate": "tests/chart/test_schema.py::test_it_is_up_to_date",
    r"make format": "tests/docs/test_commands.py::test_make_knows_its_targets",
    # This run itself, and the one beside it.
    r"make (test|e2e)": "tests/docs/test_commands.py::test_make_knows_its_targets",
    r"curl .*/v1/rag/docs/documents.*": "tests/docs/test_rag_documents.py::test_a_command_gets_an_answer",
    r"python -m serve_apps\.rag\.ingest .*": "tests/docs/test_rag_documents.py::test_a_folder_is_brought_in",
    r"curl .*(helper|/v1/agents/).*": "tests/docs/test_agents.py::test_a_command_gets_an_answer",
    r"curl .*/v1/(files|batches).*": "tests/docs/test_batch.py::test_a_command_gets_an_answer",
    r"python -m serve_apps\.batch run .*": "tests/docs/test_batch.py::test_the_command_line_answers_a_file",
    r"curl .*(tuned|support).*": "tests/docs/test_lora.py::test_a_command_gets_an_answer",
    r"curl .*": "tests/docs/test_gateway.py::test_a_command_gets_an_answer",
    r"kubectl .*patch secret .*": "tests/tools/test_key.py::test_the_printed_key_is_recognised_by_the_printed_entry",
    r"kubectl get rayjobs": "tests/chart/test_rayjob.py::test_it_ends_with_its_cluster_and_goes_on_with_another",
    r"kubectl drain .*": (
        "tests/chart/test_poddisruptionbudget.py::test_of_a_group_one_worker_may_go_at_a_time_and_the_last_may_not"
    ),
    r"kubectl .*get secret llm-serving-ray-token .*": (
        "tests/chart/test_ray_cluster.py::test_rays_own_interfaces_ask_for_the_charts_token"
    ),
    r"kubectl .*port-forward svc/llm-serving-head-svc 8265": (
        "tests/chart/test_ingress.py::test_the_dashboards_leads_to_the_head_and_nowhere_else"
    ),
    r"kubectl .*scale statefulset .*": "tests/e2e/test_milvus.py::test_documents_are_there_after_a_stop",
    r"kubectl label namespace .* pod-security.*": (
        "tests/chart/test_pod_security.py::test_every_pod_of_each_feature_is_restricted"
    ),
    r"(kubectl .*wait .*|kubectl .*port-forward svc/llm-serving-serve-svc 8000 &|export (URL|KEY)=.*)": (
        "tests/chart/test_notes.py::test_the_notes_say_what_is_served_how_to_wait_and_how_to_call"
    ),
    r"kubectl .*get rayservice .*": "tests/e2e/test_rolling.py::test_an_image_rolls_a_new_cluster",
    r"helm upgrade [^…]*": "tests/e2e/test_in_place.py::test_settings_and_routes_change_in_running_replicas",
    # The last resort: what makes it needless is proven.
    r"helm upgrade … --force-conflicts": "tests/chart/test_rayservice.py::"
    "test_kuberay_finds_its_finalizer_and_has_nothing_to_write",
    r"helm .*rollback .*": "tests/e2e/test_broken_model.py::test_a_broken_model_harms_no_other_and_is_taken_back",
    r"helm .*test .*": "tests/e2e/test_install.py::test_helm_test_asks_it",
    r"helm .*uninstall .*": "tests/e2e/test_uninstall.py::test_nothing_is_left_of_an_uninstalled_release",
}
#: What is run here; a command that would change a cluster is only rendered.
RUN = (r"make", r"make plan FILE=[a-z0-9/.-]+", r"make key ID=[a-z-]+( ROTATE=1)?", r"helm (install|template|lint) .*")


def proof(command: str) -> str | None:
    return next((test for pattern, test in PROVEN_BY.items() if re.fullmatch(pattern, command)), None)


def is_run(command: str) -> bool:
    return any(re.fullmatch(pattern, command) for pattern in RUN)


def plain(words: list[str]) -> str:
    """A command as the patterns above see it, without quotes."""
    return " ".join(words)


@pytest.mark.parametrize("words", [words for _, words in COMMANDS], ids=[command for command, _ in COMMANDS])
def test_a_command_is_run_or_proven_elsewhere(words: list[str]) -> None:
    assert is_run(plain(words)) != bool(proof(plain(words))), f"say in {__file__} how `{plain(words)}` is proven"


@pytest.mark.parametrize("test", sorted(set(PROVEN_BY.values())))
def test_the_tests_that_prove_commands_exist(test: str) -> None:
    file, _, function = test.partition("::")
    assert f"def {function}(" in (REPOSITORY / file).read_text()


@pytest.mark.parametrize("pattern", sorted({*PROVEN_BY, *RUN}))
def test_every_pattern_matches_a_command(pattern: str) -> None:
    assert any(re.fullmatch(pattern, plain(words)) for _, words in COMMANDS)


@pytest.mark.parametrize(
    "words", [pytest.param(words, id=command) for command, words in COMMANDS if is_run(plain(words))]
)
def test_the_command_works(words: list[str]) -> None:
    if words[0] == "helm":
        words = [str(helm()), *("template" if word == "install" else word for word in words[1:])]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize(
    "words", [pytest.param(words, id=command) for command, words in COMMANDS if words[0] == "make"]
)
def test_make_knows_its_targets(words: list[str]) -> None:
    done = subprocess.run(
        [*words, "--dry-run"], cwd=REPOSITORY, capture_output=True, text=True, check=False, env=without_make()
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", FILES, ids=name)
def test_the_release_is_in_one_namespace_in_all_documents(file: Path) -> None:
    """So that commands of several pages, and of a runbook at night, can be pasted one after the other."""
    named = re.findall(r"(?:kubectl|helm) .*?(?:-n|--namespace)[ =]([a-z][a-z-]*)", file.read_text())
    assert set(named) <= {"ray-system", "kuberay-operator"}


def without_make() -> dict[str, str]:
    """The environment without what an outer make (that of `make test`) hands to inner ones."""
    return {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES")}


def test_a_question_with_quotes_reaches_the_demo_as_it_is(tmp_path: Path) -> None:
    """The question goes through make and a shell; neither may read it."""
    question = 'What\'s "the only" way in? `id` $(id)'
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "--silent", "demo", f"RUN={python}", "PYTHON=true", f"ASK={question.replace('$', '$$')}", "EXIT=1"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        env=without_make(),
    )
    assert done.stdout.splitlines() == ["-m", "tools.demo", "--ask", question, "--exit"]
