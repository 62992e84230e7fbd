"""What the local runner reads off the rendered RayService."""

import pytest

from tools.demo.rendered import REPOSITORY, RenderedService, helm_template, ray_service
from tools.gotools import helm


def rendered(preset: str) -> RenderedService:
    """A preset on the environment local."""
    files = [REPOSITORY / "values" / name for name in (f"{preset}.yaml", "environments/local.yaml")]
    return ray_service(helm_template(helm(), files, ["gateway.port=8123"]))


def test_one_node_stands_in_for_the_pipelines_and_the_models_on_cpu() -> None:
    labels = rendered("rag").labels
    assert labels["llm-serving/role"] == "pipelines"
    assert labels["llm-serving/accelerator"] == "cpu"


def test_the_environment_is_that_of_the_pods() -> None:
    environment = rendered("rag").environment
    assert environment["RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING"] == "1"
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


@pytest.mark.parametrize(
    ("preset", "answering"),
    [("chat-8b", ["chat"]), ("rag", ["chat"]), ("multi-model", ["chat", "chat-large"]), ("large-model-tp4", ["chat"])],
)
def test_questions_go_to_models_that_generate(preset: str, answering: list[str]) -> None:
    assert rendered(preset).answering_models == answering


def test_the_port_is_the_gateways() -> None:
    assert rendered("rag").port == 8123


def test_what_helm_refuses_is_said_in_helms_words() -> None:
    with pytest.raises(ValueError, match="additional properties 'modles' not allowed"):
        helm_template(helm(), [], ["modles.chat.source=hf://org/name"])
