from tests.chart.render import of_kind, render_chart, the, worker_group


def test_workers_get_an_account_of_their_own_with_its_annotations() -> None:
    annotations = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/weights"}
    account = the(render_chart({"serviceAccount": {"annotations": annotations}}), "ServiceAccount")
    assert account["metadata"]["name"] == "llm-serving"
    assert account["metadata"]["annotations"] == annotations
    assert account["automountServiceAccountToken"] is False


def test_an_account_that_exists_is_used_and_not_made() -> None:
    objects = render_chart({"serviceAccount": {"create": False, "name": "weights"}})
    assert of_kind(objects, "ServiceAccount") == {}
    assert worker_group(objects, "l4")["template"]["spec"]["serviceAccountName"] == "weights"


def test_without_one_it_is_the_namespaces_default() -> None:
    objects = render_chart({"serviceAccount": {"create": False}})
    assert worker_group(objects, "l4")["template"]["spec"]["serviceAccountName"] == "default"
