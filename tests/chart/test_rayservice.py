from tests.chart.render import render_chart, the


def test_the_head_is_left_out_of_the_serve_service() -> None:
    assert the(render_chart(), "RayService")["spec"]["excludeHeadPodFromServeSvc"] is True


def test_an_upgrade_starts_a_second_cluster_unless_told_otherwise() -> None:
    assert the(render_chart(), "RayService")["spec"]["upgradeStrategy"] == {"type": "NewCluster"}
    in_place = render_chart({"upgradeStrategy": {"type": "None"}})
    assert the(in_place, "RayService")["spec"]["upgradeStrategy"] == {"type": "None"}


def test_the_old_cluster_stays_until_its_streams_have_ended() -> None:
    spec = the(render_chart(), "RayService")["spec"]
    assert spec["rayClusterDeletionDelaySeconds"] == 360
    assert (
        the(render_chart({"rayClusterDeletionDelaySeconds": 0}), "RayService")["spec"]["rayClusterDeletionDelaySeconds"]
        == 0
    )


def test_fields_that_kuberay_ignores_or_that_end_the_service_are_not_rendered() -> None:
    service = the(render_chart(), "RayService")
    assert set(service["spec"]) == {
        "upgradeStrategy",
        "rayClusterDeletionDelaySeconds",
        "excludeHeadPodFromServeSvc",
        "serveConfigV2",
        "rayClusterConfig",
    }
    assert "annotations" not in service["metadata"]


def test_kuberay_finds_its_finalizer_and_has_nothing_to_write() -> None:
    assert the(render_chart(), "RayService")["metadata"]["finalizers"] == ["ray.io/rayservice-finalizer"]


def test_the_ray_version_is_the_images() -> None:
    assert the(render_chart(), "RayService")["spec"]["rayClusterConfig"]["rayVersion"] == "2.60.0"
