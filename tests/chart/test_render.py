"""The Helm that stays renders and refuses as the program does."""

import pytest

from tests.chart.render import CHART, VALUES, RenderRefused, _objects, helm, notes, render_chart

FILES = [VALUES / "rag.yaml", VALUES / "environments" / "eks-prod.yaml"]
MORE = {"models": {"chat": {"env": {"GREETING": "hé 😀: |"}}}}


def test_it_renders_as_helm_template_does() -> None:
    printed = helm("template", "prod", str(CHART), "--namespace=llm", values=MORE, files=FILES)
    by_helm, by_ours = _objects(printed), render_chart(MORE, files=FILES, release="prod", namespace="llm")
    assert [one["kind"] for one in by_ours] == [one["kind"] for one in by_helm]
    # Those are random.
    assert [one for one in by_ours if one["kind"] != "Secret"] == [one for one in by_helm if one["kind"] != "Secret"]


def test_its_notes_are_those_of_helm_install() -> None:
    printed = helm("install", "llm-serving", str(CHART), "--dry-run=client", values=MORE, files=FILES)
    assert notes(MORE, files=FILES) == printed.partition("\nNOTES:\n")[2]


@pytest.mark.parametrize("values", [{"modles": {}}, {"models": {"chat": {}}}, {"fullnameOverride": "1st"}])
def test_it_refuses_in_helms_words(values: dict[str, object]) -> None:
    with pytest.raises(RenderRefused) as by_helm:
        helm("template", "llm-serving", str(CHART), values=values)
    with pytest.raises(RenderRefused) as by_ours:
        render_chart(values)
    assert str(by_ours.value) == str(by_helm.value)
