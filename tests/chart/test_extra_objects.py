from typing import Any

from tests.chart.render import of_kind, render_chart


def test_objects_are_added_and_templates_in_them_rendered() -> None:
    extra: list[Any] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": '{{ include "llm-serving.fullname" . }}-extra'}},
        'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "{{ .Release.Name }}-text"}\n',
    ]
    assert set(of_kind(render_chart({"extraObjects": extra}, release="prod"), "ConfigMap")) == {
        "prod-llm-serving-extra",
        "prod-text",
    }
