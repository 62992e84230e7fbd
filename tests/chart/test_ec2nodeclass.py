from tests.chart.render import of_kind, render_chart

SPEC = {
    "role": "KarpenterNodeRole-my-cluster",
    "amiSelectorTerms": [{"alias": "al2023@latest"}],
    "subnetSelectorTerms": [{"tags": {"karpenter.sh/discovery": "my-cluster"}}],
    "securityGroupSelectorTerms": [{"tags": {"karpenter.sh/discovery": "my-cluster"}}],
}


def test_there_is_none_unless_declared() -> None:
    assert of_kind(render_chart(), "EC2NodeClass") == {}


def test_the_spec_is_passed_on_as_it_is() -> None:
    classes = of_kind(render_chart({"nodeClasses": {"gpu": {"spec": SPEC}}}), "EC2NodeClass")
    assert {name: one["spec"] for name, one in classes.items()} == {"gpu": SPEC}


def test_a_disabled_class_is_not_there() -> None:
    objects = render_chart({"nodeClasses": {"gpu": {"enabled": False, "spec": SPEC}}})
    assert of_kind(objects, "EC2NodeClass") == {}
